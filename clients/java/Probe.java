// Java's own HttpClient as it is made by default, which asks for an upgrade to HTTP/2 in its first request.
// java Probe.java http://127.0.0.1:8000 "wireless mouse" "Mouse pad" "Wireless mouse"
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.Arrays;
import java.util.stream.Collectors;

public class Probe {
    public static void main(String[] arguments) throws Exception {
        String documents = Arrays.stream(arguments).skip(2).map(Probe::quoted).collect(Collectors.joining(","));
        String body = "{\"query\":" + quoted(arguments[1]) + ",\"documents\":[" + documents + "]}";
        HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0] + "/v1/rerank"))
            .header("Content-Type", "application/json")
            .POST(BodyPublishers.ofString(body))
            .build();
        String answer = HttpClient.newHttpClient().send(request, BodyHandlers.ofString()).body();
        System.out.println("{\"client\":\"Java HttpClient\",\"version\":" + quoted(System.getProperty("java.version"))
            + ",\"name\":\"POST\",\"value\":\"{url}/v1/rerank\",\"answer\":" + answer + "}");
    }

    private static String quoted(String text) {
        return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
    }
}
