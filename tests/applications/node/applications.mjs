// ioredis and BullMQ at work: node applications.mjs PORT. Exits with an error if anything is not as it should be.
import assert from "node:assert/strict";
import { once } from "node:events";
import Redis from "ioredis";
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

const began = Date.now();
for (const one of await ioredis()) one.disconnect();
console.log(`ioredis: ${Date.now() - began} ms`);
const middle = Date.now();
for (const one of await bullmq()) await one.close();
console.log(`BullMQ: ${Date.now() - middle} ms`);
process.exit(0);
