// graphile-worker under test, started by peer.py: its worker and its producer.
//
// graphile.mjs work|create ADDRESS IN_FLIGHT. work: says "ready", then sends what is due until its
// input ends. create: reads one line of JSON, an Order, and answers with the seconds it took and its
// CPU time.
import { address, inFlight, play, requireFor, sender } from './sender.mjs';

const require = requireFor('graphile');
const { Logger, makeWorkerUtils, run } = require('graphile-worker');

const TOGETHER = 500; // jobs in a call
const ATTEMPTS = 5;

// Its documentation's settings for high throughput, with the pool that it advises for this many jobs
// at a time. It looks for what has come due each pollInterval ms, of which the default is 2,000.
const preset = {
  worker: {
    connectionString: address,
    concurrentJobs: inFlight,
    maxPoolSize: inFlight + 2,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
    pollInterval: 50,
  },
};

// Only what breaks the worker: else each job has a line.
const logger = new Logger(() => (level, message, meta) => {
  if (level === 'error' && !meta?.failure) console.error(message);
});

async function work() {
  const taskList = { deliver: sender(require('undici')) };
  const parsedCronItems = [];
  const runner = await run({ preset, taskList, parsedCronItems, logger, noHandleSignals: true });
  runner.promise.catch((error) => {
    console.error(error);
    process.exit(1);
  });
}

async function prepare() {
  const utils = await makeWorkerUtils({ preset, logger });
  await utils.migrate();
  return utils;
}

async function create(utils, { hook, due_ms: due, payloads }) {
  for (let start = 0; start < due.length; start += TOGETHER) {
    const jobs = due.slice(start, start + TOGETHER).map((ms, n) => ({
      identifier: 'deliver',
      payload: { hook, payload: payloads[start + n] },
      runAt: new Date(ms),
      maxAttempts: ATTEMPTS,
    }));
    await utils.addJobs(jobs);
  }
}

await play({ work, prepare, create });
