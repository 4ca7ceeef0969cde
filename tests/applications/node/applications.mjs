// ioredis, BullMQ, Bull, bee-queue and rsmq at work: node applications.mjs PORT. Exits with an error if anything is not as it should be.
import assert from "node:assert/strict";
import { once } from "node:events";
import BeeQueue from "bee-queue";
import Bull from "bull";
import Redis from "ioredis";
import Rsmq from "rsmq";
import { FlowProducer, Queue, QueueEvents, Worker } from "bullmq";

const connection = { host: "127.0.0.1", port: Number(process.argv[2]), maxRetriesPerRequest: null };

async function ioredis() {
  const client = new Redis(connection);
  const listener = new Redis(connection);
  await client.flushall();
  const keys = Array.from({ length: 20 }, (_, number) => `io:${number}`);
  await client.mset(...keys.flatMap((key) => [key, "v"]));
  assert.deepEqual(await client.mget(keys), keys.map(() => "v"));
  const results = await client.multi(keys.map((key) => ["append", key, "w"])).exec();
  assert.deepEqual(results, keys.map(() => [null, 2]));
  client.defineCommand("both", { numberOfKeys: 2, lua: "return redis.call('mget', KEYS[1], KEYS[2])" });
  assert.deepEqual(await client.both("io:1", "io:2"), ["vw", "vw"]);
  await listener.subscribe("news");
  const message = once(listener, "message");
  await client.publish("news", "hello");
  assert.deepEqual(await message, ["news", "hello"]);
  const found = [];
  for await (const batch of client.scanStream({ match: "io:*" })) found.push(...batch);
  assert.deepEqual([...new Set(found)].sort(), [...keys].sort());
  const popped = listener.duplicate().blpop("io:list", "io:other", 5);
  await client.rpush("io:other", "x");
  assert.deepEqual(await popped, ["io:other", "x"]);
  await client.xadd("io:stream", "*", "a", "1");
  assert.equal((await client.xread("STREAMS", "io:stream", "0"))[0][1].length, 1);
  return [client, listener];
}

async function bullmq() {
  const queue = new Queue("paint", { connection });
  const events = new QueueEvents("paint", { connection });
  await events.waitUntilReady();
  const seen = [];
  const worker = new Worker("paint", async (job) => {
    seen.push(job.name);
    if (job.name === "fails" && job.attemptsMade < 1) throw new Error("once more");
    return job.data.n * 2;
  }, { connection, concurrency: 8 });
  const jobs = await queue.addBulk(
    Array.from({ length: 100 }, (_, n) => ({ name: "many", data: { n } })));
  for (const [n, job] of jobs.entries()) assert.equal(await job.waitUntilFinished(events, 20000), n * 2);
  const delayed = await queue.add("delayed", { n: 4 }, { delay: 300 });
  assert.equal(await delayed.waitUntilFinished(events, 20000), 8);
  const failing = await queue.add("fails", { n: 5 }, { attempts: 3, backoff: 50 });
  assert.equal(await failing.waitUntilFinished(events, 20000), 10);
  const first = await queue.add("priority", { n: 1 }, { priority: 5 });
  assert.equal(await first.waitUntilFinished(events, 20000), 2);
  await queue.upsertJobScheduler("every", { every: 200, limit: 2 }, { name: "tick", data: { n: 1 } });
  const end = Date.now() + 10000;
  while (seen.filter((name) => name === "tick").length < 2) {
    assert.ok(Date.now() < end, "the scheduler ticks");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const flow = new FlowProducer({ connection });
  const tree = await flow.add({
    name: "parent", queueName: "paint", data: { n: 7 },
    children: [1, 2, 3].map((n) => ({ name: "child", queueName: "paint", data: { n } })),
  });
  assert.equal(await tree.job.waitUntilFinished(events, 20000), 14);
  assert.deepEqual(Object.values(await tree.job.getChildrenValues()).sort(), [2, 4, 6]);
  const counts = await queue.getJobCounts("completed", "failed", "active", "waiting");
  assert.equal(counts.failed, 0);
  await queue.pause();
  await queue.resume();
  await queue.drain();
  return [worker, events, flow, queue];
}

async function bull() {
  const queue = new Bull("letters", { redis: connection });
  const seen = [];
  queue.process(4, async (job) => {
    seen.push(job.data.n);
    await job.progress(50);
    if (job.data.fails && job.attemptsMade < 1) throw new Error("once more");
    return job.data.n * 2;
  });
  const jobs = await queue.addBulk(Array.from({ length: 100 }, (_, n) => ({ data: { n } })));
  for (const [n, job] of jobs.entries()) assert.equal(await job.finished(), n * 2);
  assert.equal(await (await queue.add({ n: 4 }, { delay: 300 })).finished(), 8);
  assert.equal(await (await queue.add({ n: 5, fails: true }, { attempts: 3, backoff: 50 })).finished(), 10);
  await queue.pause();
  seen.length = 0;
  const ranked = [];
  for (const n of [3, 1, 2]) ranked.push(await queue.add({ n }, { priority: n }));
  assert.equal((await queue.getJobCounts()).paused, 3);
  await queue.resume();
  for (const job of ranked) await job.finished();
  assert.deepEqual([...seen].sort(), [1, 2, 3]);
  await queue.add({ n: 6 }, { jobId: "once", delay: 60000 });
  await queue.add({ n: 7 }, { jobId: "once", delay: 60000 });
  assert.equal((await queue.getDelayed()).length, 1);
  assert.equal((await queue.clean(0, "completed")).length, 105);
  assert.equal((await queue.getJobCounts()).completed, 0);
  await queue.obliterate({ force: true });
  return [queue];
}

async function beeQueue() {
  const queue = new BeeQueue("errands", { redis: connection, activateDelayedJobs: true });
  await queue.ready();
  const done = (job) => new Promise((resolve, reject) => {
    job.on("succeeded", resolve);
    job.on("failed", reject);
  });
  let failures = 0;
  queue.process(4, async (job) => {
    job.reportProgress(50);
    if (job.data.fails && failures++ < 1) throw new Error("once more");
    return job.data.n * 2;
  });
  const jobs = Array.from({ length: 100 }, (_, n) => queue.createJob({ n }));
  const results = jobs.map(done);
  assert.equal((await queue.saveAll(jobs)).size, 0);
  assert.deepEqual(await Promise.all(results), jobs.map((job) => job.data.n * 2));
  const delayed = queue.createJob({ n: 4 }).delayUntil(Date.now() + 300);
  const failing = queue.createJob({ n: 5, fails: true }).retries(2);
  const both = [done(delayed), done(failing)];
  await delayed.save();
  await failing.save();
  assert.deepEqual(await Promise.all(both), [8, 10]);
  assert.equal((await queue.checkHealth()).failed, 0);
  await queue.destroy();
  return [queue];
}

async function rsmq() {
  const queue = new (Rsmq.default ?? Rsmq)({ host: connection.host, port: connection.port });
  const name = { qname: "post" };
  await queue.createQueueAsync({ ...name, vt: 0 });
  for (let n = 0; n < 100; n++) await queue.sendMessageAsync({ ...name, message: `${n}` });
  assert.equal((await queue.receiveMessageAsync({ ...name, vt: 30 })).message, "0");
  assert.equal((await queue.receiveMessageAsync(name)).message, "1");
  assert.equal((await queue.popMessageAsync(name)).message, "2");
  const taken = await queue.receiveMessageAsync({ ...name, vt: 30 });
  assert.equal(await queue.changeMessageVisibilityAsync({ ...name, id: taken.id, vt: 0 }), 1);
  assert.equal(await queue.deleteMessageAsync({ ...name, id: taken.id }), 1);
  const state = await queue.getQueueAttributesAsync(name);
  assert.deepEqual([state.msgs, state.totalsent], [98, 100]);
  await queue.deleteQueueAsync(name);
  return [{ close: () => queue.quit() }];
}

async function timed(name, run) {
  const began = Date.now();
  const left = await run();
  console.log(`${name}: ${Date.now() - began} ms`);
  for (const one of left) await (one.close ?? one.disconnect).call(one);
}

await timed("ioredis", ioredis);
await timed("BullMQ", bullmq);
await timed("Bull", bull);
await timed("bee-queue", beeQueue);
await timed("rsmq", rsmq);
process.exit(0);
