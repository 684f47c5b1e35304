import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';

import { atMostEvery, perFrame } from '../../backend/assets/dashboard/throttle.js';

const real = { setTimeout, clearTimeout, performance,
  requestAnimationFrame: globalThis.requestAnimationFrame };
let now;
let timers;

/** Moves the clock on, and runs what is due in the order of its time. */
async function pass(milliseconds) {
  const end = now + milliseconds;
  for (;;) {
    const due = [...timers].filter(([, timer]) => timer.at <= end).sort(([, a],
      [, b]) => a.at - b.at)[0];
    if (!due) break;
    const [id, timer] = due;
    timers.delete(id);
    now = Math.max(now, timer.at);
    timer.work();
    await settle();
  }
  now = end;
}

/** Lets promises that are resolved go on. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

beforeEach(() => {
  now = 100_000;
  timers = new Map();
  let ids = 0;
  const define = (name, value) => Object.defineProperty(globalThis, name,
    { value, configurable: true, writable: true });
  define('performance', { now: () => now });
  define('setTimeout', (work, wait) => {
    ids += 1;
    timers.set(ids, { at: now + wait, work });
    return ids;
  });
  define('clearTimeout', (id) => timers.delete(id));
  define('requestAnimationFrame', (work) => globalThis.setTimeout(work, 16));
});

afterEach(() => {
  for (const [name, value] of Object.entries(real)) {
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  }
});

test('work is done once a frame, however often it is asked for', async () => {
  let runs = 0;
  const ask = perFrame(() => { runs += 1; });

  ask();
  ask();
  assert.equal(runs, 0);
  await pass(16);
  assert.equal(runs, 1);

  ask();
  await pass(16);
  assert.equal(runs, 2);
});

test('a burst of requests leads to one run soon, and to the next one only after the gap',
  async () => {
  const runs = [];
  const ask = atMostEvery(1000, async () => { runs.push(now); });
  const begun = now;

  for (let at = 0; at < 100; at += 1) ask();
  await pass(30);
  assert.deepEqual(runs, [begun + 30]);

  ask();
  await pass(900);
  assert.equal(runs.length, 1);
  await pass(100);
  assert.deepEqual(runs, [begun + 30, begun + 1030]);
});

test('further requests do not put off a run that is planned', async () => {
  let runs = 0;
  const ask = atMostEvery(1000, async () => { runs += 1; });

  ask();
  await pass(20);
  ask();
  await pass(10);

  assert.equal(runs, 1);
});

test('an urgent request does not wait for the gap', async () => {
  let runs = 0;
  const ask = atMostEvery(1000, async () => { runs += 1; });
  ask();
  await pass(30);

  ask();
  ask(true);
  await pass(0);

  assert.equal(runs, 2);
  await pass(5000);
  assert.equal(runs, 2, 'the urgent request took the place of the other one');
});

test('work never runs twice at a time, and a request during a run leads to another run',
  async () => {
  const finish = [];
  const ask = atMostEvery(1000, () => new Promise((resolve) => { finish.push(resolve); }));
  ask(true);
  await pass(0);

  ask(true);
  await pass(0);
  assert.equal(finish.length, 1);

  finish[0]();
  await settle();
  await pass(1000);
  assert.equal(finish.length, 2);
});

test('nothing runs after it was stopped', async () => {
  let runs = 0;
  const ask = atMostEvery(1000, async () => { runs += 1; });

  ask();
  ask.stop();
  ask(true);
  await pass(5000);

  assert.equal(runs, 0);
});
