// What a kafkajs client sees of a broker: does it all once and prints one JSON object of what it saw.
const { Kafka, logLevel, Partitioners } = require("kafkajs");

const [bootstrap, topic, group] = process.argv.slice(2);
const kafka = new Kafka({
  clientId: "check",
  brokers: [bootstrap],
  logLevel: logLevel.ERROR,
  retry: { initialRetryTime: 50, retries: 20 },
});
const seen = {};

function member(records) {
  // kafkajs sends heartbeats between fetches only: a member learns of a rebalance when its fetch is answered.
  const consumer = kafka.consumer({
    groupId: group,
    heartbeatInterval: 100,
    sessionTimeout: 6000,
    maxWaitTimeInMs: 600,
  });
  const partitions = { held: [] };
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    partitions.held = payload.memberAssignment[topic] ?? [];
  });
  return {
    partitions,
    async start() {
      await consumer.connect();
      await consumer.subscribe({ topic, fromBeginning: true });
      await consumer.run({
        eachMessage: async ({ partition, message }) => {
          records.push({
            partition,
            offset: message.offset,
            key: message.key.toString(),
            value: message.value.toString(),
            header: message.headers.h.toString(),
            waited: Date.now() - Number(message.timestamp),
          });
        },
      });
    },
    stop: () => consumer.disconnect(),
  };
}

async function until(holds) {
  for (let left = 1000; !holds(); left--) {
    if (left === 0) throw new Error(`waited too long for ${holds}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function main() {
  const admin = kafka.admin();
  await admin.connect();
  seen.created = await admin.createTopics({ topics: [{ topic, numPartitions: 2 }], waitForLeaders: true });
  seen.createdAgain = await admin.createTopics({ topics: [{ topic, numPartitions: 2 }] });

  const records = [];
  const first = member(records);
  const second = member(records);
  await first.start();
  await second.start();
  await until(() => first.partitions.held.length === 1 && second.partitions.held.length === 1);
  seen.shares = [...first.partitions.held, ...second.partitions.held].sort();
  seen.state = (await admin.describeGroups([group])).groups[0].state;

  const producer = kafka.producer({ idempotent: true, createPartitioner: Partitioners.DefaultPartitioner });
  await producer.connect();
  seen.baseOffsets = [];
  for (let n = 0; n < 20; n++) {
    const message = { partition: n % 2, key: `k${n}`, value: `v${n}`, headers: { h: "x" } };
    const [report] = await producer.send({ topic, acks: -1, messages: [message] });
    seen.baseOffsets.push(report.baseOffset);
  }
  await until(() => records.length === 20);
  seen.values = records.map((one) => one.value).sort();
  seen.headers = [...new Set(records.map((one) => one.header))];
  seen.medianWaited = records.map((one) => one.waited).sort((a, b) => a - b)[10];

  await second.stop();
  await until(() => first.partitions.held.length === 2);
  await first.stop();
  const [committed] = await admin.fetchOffsets({ groupId: group, topics: [topic] });
  seen.committed = committed.partitions.map((one) => [one.partition, one.offset]).sort();
  seen.ends = (await admin.fetchTopicOffsets(topic)).map((one) => [one.partition, one.low, one.high]).sort();
  seen.listed = (await admin.listGroups()).groups.some((one) => one.groupId === group);
  await admin.deleteGroups([group]);
  await admin.deleteTopics({ topics: [topic] });
  await producer.disconnect();
  await admin.disconnect();
  console.log(JSON.stringify(seen));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
