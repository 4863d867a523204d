// What the peers on Node.js have in common: one POST a job, and the talk with peer.py.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const TIMEOUT = 30_000; // ms of a request

export const [role, address, inFlight] = [...process.argv.slice(2, 4), Number(process.argv[4])];

export const answer = (value) => console.log(JSON.stringify(value));

// The packages that `setup` installed for a peer.
export const requireFor = (peer) =>
  createRequire(new URL(`.installed/${peer}/`, import.meta.url));

// A function that sends a job's payload over connections that stay open, at most inFlight to a host.
export function sender({ Pool }) {
  const pools = new Map();
  const options = { connections: inFlight, headersTimeout: TIMEOUT, bodyTimeout: TIMEOUT };
  const pool = (origin) => {
    if (!pools.has(origin)) pools.set(origin, new Pool(origin, options));
    return pools.get(origin);
  };
  return async ({ hook, payload }) => {
    const { origin, pathname: path } = new URL(hook);
    const headers = { 'content-type': 'application/json' };
    const body = JSON.stringify(payload);
    const response = await pool(origin).request({ path, method: 'POST', headers, body });
    await response.body.dump();
    if (response.statusCode >= 300) throw new Error(`answered ${response.statusCode}`);
  };
}

// Plays the role: work(), which returns when it is ready, until the input ends; or one order with
// create(order), after prepare().
export async function play({ work, prepare, create }) {
  const input = createInterface({ input: process.stdin });
  if (role === 'work') {
    await work();
    answer('ready');
    input.on('close', () => process.exit());
    return;
  }
  const asked = new Promise((resolve) => input.once('line', resolve)); // before any line can come
  const prepared = await prepare();
  const order = JSON.parse(await asked);
  const began = performance.now();
  await create(prepared, order);
  const cpu = process.cpuUsage();
  answer({ seconds: (performance.now() - began) / 1000, cpu_s: (cpu.user + cpu.system) / 1e6 });
  process.exit();
}
