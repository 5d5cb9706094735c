package testbed;

import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.kafka.annotation.EnableKafka;
import org.springframework.kafka.config.ConcurrentKafkaListenerContainerFactory;
import org.springframework.kafka.config.KafkaListenerEndpointRegistry;
import org.springframework.kafka.core.DefaultKafkaConsumerFactory;
import org.springframework.kafka.core.DefaultKafkaProducerFactory;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.kafka.listener.DefaultErrorHandler;
import org.springframework.kafka.listener.KafkaListenerErrorHandler;
import org.springframework.kafka.support.converter.StringJsonMessageConverter;
import org.springframework.kafka.support.serializer.ErrorHandlingDeserializer;
import org.springframework.kafka.support.serializer.JsonDeserializer;
import org.springframework.kafka.support.serializer.JsonSerializer;
import org.springframework.messaging.support.MessageBuilder;
import org.springframework.util.backoff.FixedBackOff;

/**
 * A spring-kafka service that answers in every way a listener can, for tests of the `spring` dialect.
 *
 * BOOTSTRAP: the broker. LEDGER: a file that gets a line of JSON for each message handled. Prints `ready` when it
 * consumes all partitions of its topics, which must exist.
 *
 * The three usual ways of bodies, each a container factory: `json`, a JSON message converter over strings; `typed`,
 * the JSON (de)serializers, which need a type header and write one; `text`, plain strings.
 */
@Configuration
@EnableKafka
public class Service {

  private static final String BOOTSTRAP = System.getenv("BOOTSTRAP");

  public static void main(String[] arguments) throws InterruptedException {
    var context = new AnnotationConfigApplicationContext(Service.class, Handlers.class);
    context.registerShutdownHook();
    var containers = context.getBean(KafkaListenerEndpointRegistry.class).getListenerContainers();
    for (var container : containers) {
      while (container.getAssignedPartitions() == null || container.getAssignedPartitions().size() < 4) {
        Thread.sleep(20);
      }
    }
    System.out.println("ready");
  }

  @Bean
  ConcurrentKafkaListenerContainerFactory<String, Object> json() {
    var factory = factory(new StringDeserializer(), new StringSerializer());
    factory.setRecordMessageConverter(new StringJsonMessageConverter());
    return factory;
  }

  @Bean
  ConcurrentKafkaListenerContainerFactory<String, Object> typed() {
    var reads = new JsonDeserializer<>();
    reads.addTrustedPackages("testbed");
    return factory(new ErrorHandlingDeserializer<>(reads), new JsonSerializer<>());
  }

  @Bean
  ConcurrentKafkaListenerContainerFactory<String, Object> text() {
    return factory(new StringDeserializer(), new StringSerializer());
  }

  /** What applications do that want their callers to hear of errors: the reason in a header of the reply. */
  @Bean
  KafkaListenerErrorHandler telling() {
    return (message, exception) ->
        MessageBuilder.withPayload("it failed").setHeader("error", exception.getCause().getMessage()).build();
  }

  @SuppressWarnings("unchecked")
  private static ConcurrentKafkaListenerContainerFactory<String, Object> factory(
      Deserializer<?> reads, Serializer<?> writes) {
    Map<String, Object> consumer = new HashMap<>();
    consumer.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, BOOTSTRAP);
    consumer.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
    consumer.put(ConsumerConfig.ALLOW_AUTO_CREATE_TOPICS_CONFIG, false);
    consumer.put(ConsumerConfig.RECONNECT_BACKOFF_MAX_MS_CONFIG, 500);
    Map<String, Object> producer = new HashMap<>();
    producer.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, BOOTSTRAP);
    producer.put(ProducerConfig.MAX_BLOCK_MS_CONFIG, 5000);
    var template =
        new KafkaTemplate<>(
            new DefaultKafkaProducerFactory<>(producer, new StringSerializer(), (Serializer<Object>) writes));
    if (writes instanceof StringSerializer) {
      // Objects become JSON, text is left alone.
      template.setMessageConverter(new TextOrJson());
    }
    var factory = new ConcurrentKafkaListenerContainerFactory<String, Object>();
    factory.setConsumerFactory(
        new DefaultKafkaConsumerFactory<>(consumer, new StringDeserializer(), (Deserializer<Object>) reads));
    factory.setReplyTemplate(template);
    factory.setCommonErrorHandler(new DefaultErrorHandler(new FixedBackOff(0, 0)));  // no second try
    return factory;
  }

  /** Spring's own converter makes JSON strings of text; this one, like Boot without a converter, does not. */
  private static final class TextOrJson extends StringJsonMessageConverter {
    @Override
    protected Object convertPayload(org.springframework.messaging.Message<?> message) {
      return message.getPayload() instanceof String text ? text : super.convertPayload(message);
    }
  }

  static String readable(byte[] value) {
    return value == null ? null : new String(value, StandardCharsets.UTF_8);
  }

  static final ObjectMapper JSON = new ObjectMapper();
}
