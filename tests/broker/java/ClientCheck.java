// What Apache Kafka's own Java client, and so spring-kafka, sees of a broker: does it all once and prints what it saw.

import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public class ClientCheck {
    private static final int RECORDS = 100;

    public static void main(String[] arguments) throws Exception {
        String topic = arguments[1];
        String group = arguments[2];
        Map<String, Object> common = Map.of("bootstrap.servers", arguments[0]);
        try (Admin admin = Admin.create(common)) {
            admin.createTopics(List.of(new NewTopic(topic, 2, (short) 1))).all().get();
            say("partitions", admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size());
            produce(common, topic);
            // A static member: it stays in the group when it closes, and takes its place again.
            say("read", consume(common, topic, group));
            say("read again", consume(common, topic, group));
            Map<String, Object> ends = new TreeMap<>();
            admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get()
                .forEach((partition, committed) -> ends.put("" + partition.partition(), committed.offset()));
            say("committed", ends);
            say("newest", admin.listOffsets(Map.of(new TopicPartition(topic, 0), OffsetSpec.maxTimestamp()))
                .partitionResult(new TopicPartition(topic, 0)).get().timestamp());
            say("members", admin.describeConsumerGroups(List.of(group)).all().get().get(group).members().size());
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all().get();
            admin.deleteTopics(List.of(topic)).all().get();
        }
    }

    /** Idempotent, which is this client's default. */
    private static void produce(Map<String, Object> common, String topic) throws Exception {
        Map<String, Object> settings = new HashMap<>(common);
        settings.put("key.serializer", StringSerializer.class);
        settings.put("value.serializer", StringSerializer.class);
        settings.put("compression.type", "lz4");
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings)) {
            for (int n = 0; n < RECORDS; n++) {
                var record = new ProducerRecord<>(topic, n % 2, 1_700_000_000_000L + n, "k" + n, "v" + n);
                record.headers().add(new RecordHeader("h", new byte[] {1}));
                if (producer.send(record).get().offset() != n / 2) throw new IllegalStateException("wrong offset");
            }
        }
    }

    private static int consume(Map<String, Object> common, String topic, String group) {
        Map<String, Object> settings = new HashMap<>(common);
        settings.put("group.id", group);
        settings.put("group.instance.id", "instance");
        settings.put("auto.offset.reset", "earliest");
        settings.put("key.deserializer", StringDeserializer.class);
        settings.put("value.deserializer", StringDeserializer.class);
        int read = 0;
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(settings)) {
            consumer.subscribe(List.of(topic));
            while (consumer.assignment().isEmpty()) read += consumer.poll(Duration.ofMillis(50)).count();
            for (int empty = 0; empty < 3; ) {
                int count = consumer.poll(Duration.ofMillis(100)).count();
                read += count;
                empty = count == 0 ? empty + 1 : 0;
            }
            consumer.commitSync();
        }
        return read;
    }

    private static void say(String what, Object value) {
        System.out.println(what + ": " + value);
    }
}
