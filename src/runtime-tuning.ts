/** What keeps a process that has served for a while as fast as V8 and Node can be. */
import { executionAsyncResource } from 'node:async_hooks';
import { nextTick } from 'node:process';
import { setFlagsFromString } from 'node:v8';

/** For the whole process; called before anything else is done. */
export function tuneRuntime(): void {
  keepRequestsYoung();
  keepTicksInShape();
}

/**
 * Keeps objects of requests in the young generation.
 *
 * V8 samples whether the objects of a place in the code outlive a collection, and if nearly all do,
 * compiles that place to allocate in the old generation (allocation site pretenuring). A young generation
 * that is still small, after the start or a lull, is collected while most of what it holds belongs to
 * requests in flight, and the sample misleads for as long as the process lives: dead objects of the old
 * generation keep the young ones that they refer to, and a quarter of what requests allocate is copied
 * and promoted. That meets every second process or so and costs it a third more CPU per introspection.
 */
function keepRequestsYoung(): void {
  setFlagsFromString('--no-allocation-site-pretenuring');
}

const keptTicks: object[] = [];

/**
 * Keeps `nextTick` compiled.
 *
 * Node describes each tick by an object whose first members have computed names, and V8 compiles the
 * definition of such a member only as long as it has met one shape of object there. It holds shapes weakly:
 * the third full collection that finds no tick waiting, as in the quiet after the start, takes the shape
 * along, the next tick has a new one, and from then on each of the five ticks of a request goes through V8's
 * runtime, which takes several times as long. One tick object that lives keeps the shape alive.
 */
function keepTicksInShape(): void {
  nextTick(() => keptTicks.push(executionAsyncResource()));
}
