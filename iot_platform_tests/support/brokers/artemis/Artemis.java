import java.io.File;
import org.apache.activemq.artemis.core.server.embedded.EmbeddedActiveMQ;

/** `java -cp 'libs/*' Artemis.java <broker.xml>`: the broker of a configuration file, until SIGTERM. */
class Artemis {
    public static void main(String[] arguments) throws Exception {
        var broker = new EmbeddedActiveMQ();
        broker.setConfigResourcePath(new File(arguments[0]).toURI().toString());
        broker.start();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                broker.stop();
            } catch (Exception error) {
                error.printStackTrace();
            }
        }));
    }
}
