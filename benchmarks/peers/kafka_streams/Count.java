import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.Properties;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

/**
 * The state suite's job as a Kafka Streams processor with one thread.
 *
 * <p>Arguments: schema file, application id, state folder, guarantee, commit interval in ms or "default",
 * "memory" or "rocksdb", "cached" or "uncached".
 */
public final class Count {
    private static final String TOPIC = "behaviour.clicks";
    private static final String STORE = "state";
    private static final int HEADER_BYTES = 5;
    private static final int STATE_BYTES = 128;
    private static final int PARTS = 8;
    private static final long HOUR_MS = 3_600_000L;

    private Count() {}

    /** Runs until told to stop. */
    public static void main(String[] args) throws IOException {
        Schema schema = new Schema.Parser().parse(Path.of(args[0]).toFile());
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, args[1]);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, System.getenv("BENCH_BROKERS"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, args[2]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, args[3]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(StreamsConfig.producerPrefix("compression.type"), "lz4");
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        if (!args[4].equals("default")) {
            settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, args[4]);
        }
        Topology topology = new Topology();
        topology.addSource("clicks", Serdes.ByteArray().deserializer(), Serdes.ByteArray().deserializer(), TOPIC);
        topology.addProcessor("count", () -> new Counting(schema), "clicks");
        topology.addStateStore(store(args[5].equals("rocksdb"), args[6].equals("cached")), "count");
        KafkaStreams streams = new KafkaStreams(topology, settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.ERROR) {
                Runtime.getRuntime().halt(1);
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }

    private static StoreBuilder<KeyValueStore<byte[], byte[]>> store(boolean rocks, boolean cached) {
        StoreBuilder<KeyValueStore<byte[], byte[]>> builder = Stores.keyValueStoreBuilder(
                rocks ? Stores.persistentKeyValueStore(STORE) : Stores.inMemoryKeyValueStore(STORE),
                Serdes.ByteArray(), Serdes.ByteArray());
        return cached ? builder.withCachingEnabled() : builder.withCachingDisabled();
    }

    private static final class Counting implements Processor<byte[], byte[], Void, Void> {
        private final Schema schema;
        private final GenericDatumReader<GenericRecord> reader;
        private final int occurredAt;
        private final int kind;
        private KeyValueStore<byte[], byte[]> states;
        private BinaryDecoder decoder;
        private GenericRecord click;

        Counting(Schema schema) {
            this.schema = schema;
            this.reader = new GenericDatumReader<>(schema);
            this.occurredAt = schema.getField("occurred_at").pos();
            this.kind = schema.getField("kind").pos();
        }

        @Override
        public void init(ProcessorContext<Void, Void> context) {
            states = context.getStateStore(STORE);
        }

        @Override
        public void process(Record<byte[], byte[]> event) {
            byte[] value = event.value();
            try {
                decoder = DecoderFactory.get()
                        .binaryDecoder(value, HEADER_BYTES, value.length - HEADER_BYTES, decoder);
                click = reader.read(click, decoder);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            long at = (Long) click.get(occurredAt);
            int which = schema.getField("kind").schema().getEnumOrdinal(click.get(kind).toString());
            byte[] before = states.get(event.key());
            byte[] after = before == null ? new byte[STATE_BYTES] : before.clone();
            ByteBuffer fields = ByteBuffer.wrap(after).order(ByteOrder.LITTLE_ENDIAN);
            fields.putLong(0, fields.getLong(0) + 1);
            fields.putLong(8, Math.max(fields.getLong(8), at));
            add(fields, 2 + which);
            add(fields, PARTS + (int) (at / HOUR_MS % 24 / 3));
            states.put(event.key(), after);
        }

        private static void add(ByteBuffer fields, int place) {
            fields.putLong(8 * place, fields.getLong(8 * place) + 1);
        }
    }
}
