// Cohere's own SDK, both versions of the API.
import { CohereClient, CohereClientV2 } from "cohere-ai";
import { MODEL, report } from "./probe.mjs";

const with_ = (Client) => async (baseUrl, query, documents) => {
  const answer = await new Client({ token: "any", baseUrl }).rerank({ model: MODEL, query, documents });
  return answer.results.map((result) => [result.index, result.relevanceScore]);
};

await report(
  { client: "cohere-ai CohereClientV2", pkg: "cohere-ai", name: "baseUrl", path: "", ask: with_(CohereClientV2) },
  { client: "cohere-ai CohereClient", pkg: "cohere-ai", name: "baseUrl", path: "/cohere", ask: with_(CohereClient) },
);
