/** The load generator, a process of its own: takes one measurement after the other from its parent. */
import { tuneRuntime } from '../../src/runtime-tuning.ts';
import { type DialectName, dialects } from './dialects.ts';
import { type LoadResult, runLoads } from './load.ts';
import { createMemory, createWorkload, type Memory, type Scenario } from './workloads.ts';

export interface LoadOrder {
  /** Names the database, whose refresh tokens are remembered between measurements. */
  readonly server: string;
  readonly dialect: DialectName;
  readonly families: number;
  readonly port: number;
  readonly loads: readonly { readonly scenario: Scenario; readonly connections: number }[];
  readonly round: number;
  readonly warmUpSeconds: number;
  readonly seconds: number;
}

export type LoadAnswer =
  | { readonly results: readonly LoadResult[]; readonly busyShare: number }
  | { readonly failure: string };

// What it costs is taken from the servers, whose cores it shares.
tuneRuntime();

const memories = new Map<string, Memory>();

process.on('message', async (order: LoadOrder) => {
  process.send?.(await run(order).catch((error) => ({ failure: String(error.message) })));
});
// The parent may be gone without a word.
process.on('disconnect', () => process.exit(1));

async function run(order: LoadOrder): Promise<LoadAnswer> {
  const memory = memories.get(order.server) ?? createMemory();
  memories.set(order.server, memory);
  const { families, round } = order;
  const options = { dialect: dialects[order.dialect], families, round, memory };
  const loads = order.loads.map(({ scenario, connections }) => ({
    workload: createWorkload(scenario, options),
    connections,
  }));
  const idle = performance.eventLoopUtilization();
  const results = await runLoads(loads, order);
  return { results, busyShare: performance.eventLoopUtilization(idle).utilization };
}
