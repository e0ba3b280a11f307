// Voyage's own SDK.
import { VoyageAIClient } from "voyageai";
import { report } from "./probe.mjs";

async function ask(baseUrl, query, documents) {
  const answer = await new VoyageAIClient({ apiKey: "any", baseUrl }).rerank({ model: "rerank-2.5", query, documents });
  return answer.data.map((result) => [result.index, result.relevanceScore]);
}

await report({ client: "voyageai VoyageAIClient", pkg: "voyageai", name: "baseUrl", path: "/voyage/v1", ask });
