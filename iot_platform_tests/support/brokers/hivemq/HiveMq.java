import com.hivemq.embedded.EmbeddedHiveMQ;
import java.nio.file.Path;

/** `java -cp 'libs/*' HiveMq.java <folder>`: the broker whose settings, data and extensions are in a folder, until SIGTERM. */
class HiveMq {
    public static void main(String[] arguments) {
        var folder = Path.of(arguments[0]);
        var broker = EmbeddedHiveMQ.builder()
            .withConfigurationFolder(folder.resolve("conf"))
            .withDataFolder(folder.resolve("data"))
            .withExtensionsFolder(folder.resolve("extensions"))
            .build();
        broker.start().join();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> broker.stop().join()));
    }
}
