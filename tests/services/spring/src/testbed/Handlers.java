package testbed;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.messaging.Message;
import org.springframework.messaging.handler.annotation.Payload;
import org.springframework.messaging.handler.annotation.SendTo;
import org.springframework.messaging.support.MessageBuilder;

/** One listener for each way of answering; each in a group of its own, which nobody else's joining holds up. */
public class Handlers {

  /** What a typed listener takes and gives. */
  public record Order(String id, int quantity) {}

  private static final Path LEDGER = Path.of(System.getenv("LEDGER"));

  /** What arrived, as this service sees it. */
  @KafkaListener(topics = "spring.echo", groupId = "spring.echo", containerFactory = "json")
  @SendTo
  public Map<String, Object> echo(ConsumerRecord<String, String> record) {
    return note(record);
  }

  @KafkaListener(topics = "spring.object", groupId = "spring.object", containerFactory = "json")
  @SendTo
  public Map<String, Object> object(@Payload Map<String, Object> payload) {
    return Map.of("id", payload.getOrDefault("id", 7), "name", "žluť");
  }

  @KafkaListener(topics = "spring.text", groupId = "spring.text", containerFactory = "text")
  @SendTo
  public String text(String payload) {
    return "read: " + payload;
  }

  /** Takes its type from the request's header and names that of its answer in one. */
  @KafkaListener(topics = "spring.typed", groupId = "spring.typed", containerFactory = "typed")
  @SendTo
  public Order typed(Order order) {
    return new Order(order.id(), order.quantity() + 1);
  }

  /** The JSON serializer puts quotes around text. */
  @KafkaListener(topics = "spring.quoted", groupId = "spring.quoted", containerFactory = "typed")
  @SendTo
  public String quoted(Order order) {
    return "order " + order.id();
  }

  /** A reply with headers of the service's own. */
  @KafkaListener(topics = "spring.created", groupId = "spring.created", containerFactory = "json")
  @SendTo
  public Message<?> created(@Payload Map<String, Object> payload) {
    return MessageBuilder.withPayload(payload).setHeader("status", 201).setHeader("location", "/orders/7").build();
  }

  /** The error handler answers with the message of the exception in a header. */
  @KafkaListener(
      topics = "spring.told", groupId = "spring.told", containerFactory = "json", errorHandler = "telling")
  @SendTo
  public String told(@Payload Map<String, Object> payload) {
    throw new IllegalStateException(String.valueOf(payload.get("error")));
  }

  /** Without such a handler nothing is answered. */
  @KafkaListener(topics = "spring.fail", groupId = "spring.fail", containerFactory = "json")
  @SendTo
  public String fail(ConsumerRecord<String, String> record) {
    note(record);
    throw new IllegalStateException("something broke");
  }

  @KafkaListener(topics = "spring.void", groupId = "spring.void", containerFactory = "json")
  @SendTo
  public void nothing(ConsumerRecord<String, String> record) {
    note(record);
  }

  @KafkaListener(topics = "spring.null", groupId = "spring.null", containerFactory = "json")
  @SendTo
  public String nullAnswer(ConsumerRecord<String, String> record) {
    note(record);
    return null;
  }

  /** Answers where it always does, whatever the request says. */
  @KafkaListener(topics = "spring.fixed", groupId = "spring.fixed", containerFactory = "json")
  @SendTo("spring.fixed.replies")
  public Map<String, Object> fixed(@Payload Map<String, Object> payload) {
    return Map.of("got", payload);
  }

  private static Map<String, Object> note(ConsumerRecord<String, String> record) {
    Map<String, Object> seen = new LinkedHashMap<>();
    Map<String, Object> headers = new LinkedHashMap<>();
    Map<String, Object> hex = new LinkedHashMap<>();
    record.headers().forEach(header -> {
      headers.put(header.key(), Service.readable(header.value()));
      hex.put(header.key(), HexFormat.of().formatHex(header.value()));
    });
    seen.put("payload", record.value());
    seen.put("headers", headers);
    seen.put("hex", hex);
    seen.put("key", record.key());
    seen.put("topic", record.topic());
    seen.put("partition", record.partition());
    seen.put("correlation_id", headers.get("kafka_correlationId"));
    try {
      Files.write(LEDGER, List.of(Service.JSON.writeValueAsString(seen)), StandardOpenOption.APPEND);
    } catch (IOException failure) {
      throw new IllegalStateException(failure);
    }
    return seen;
  }
}
