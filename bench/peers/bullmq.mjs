// BullMQ under test, started by peer.py: its worker and its producer.
//
// bullmq.mjs work|create ADDRESS IN_FLIGHT. work: says "ready", then sends what is due until its input
// ends. create: reads one line of JSON, an Order, and answers with the seconds it took and its CPU
// time.
import { address, inFlight, play, requireFor, sender } from './sender.mjs';

const require = requireFor('bullmq');
const { Queue, Worker } = require('bullmq');

const { hostname: host, port } = new URL(address);
const connection = { host, port: Number(port), maxRetriesPerRequest: null };
const NAME = 'bench';
const CREATING = 64; // calls under way

async function work() {
  const kept = { removeOnComplete: { count: 0 }, removeOnFail: { count: 0 } };
  const send = sender(require('undici'));
  const process = ({ data }) => send(data);
  const worker = new Worker(NAME, process, { connection, concurrency: inFlight, ...kept });
  worker.on('error', (error) => console.error(error.message));
  await worker.waitUntilReady();
}

async function prepare() {
  const queue = new Queue(NAME, {
    connection,
    defaultJobOptions: { removeOnComplete: true, removeOnFail: true, attempts: 5 },
  });
  await queue.waitUntilReady();
  return queue;
}

async function create(queue, { prefix, hook, due_ms: due, payloads }) {
  let next = 0;
  const some = async () => {
    while (next < due.length) {
      const n = next++;
      const delay = Math.max(0, due[n] - Date.now());
      await queue.add('deliver', { hook, payload: payloads[n] }, { jobId: `${prefix}-${n}`, delay });
    }
  };
  await Promise.all(Array.from({ length: CREATING }, some));
}

await play({ work, prepare, create });
