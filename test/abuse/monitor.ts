/** Loaded into a server under attack: says four times a second how it is. */
import { monitorEventLoopDelay } from 'node:perf_hooks';

const delays = monitorEventLoopDelay({ resolution: 5 });
delays.enable();
setInterval(() => {
  const delayMilliseconds = delays.percentile(99) / 1e6;
  const memoryMebibytes = process.memoryUsage.rss() / 2 ** 20;
  process.stderr.write(`monitor ${JSON.stringify({ delayMilliseconds, memoryMebibytes })}\n`);
  delays.reset();
}, 250).unref();
