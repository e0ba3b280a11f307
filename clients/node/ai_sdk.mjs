// Vercel's AI SDK with its provider for Cohere.
import { createCohere } from "@ai-sdk/cohere";
import { rerank } from "ai";
import { MODEL, report } from "./probe.mjs";

async function ask(baseURL, query, documents) {
  const model = createCohere({ apiKey: "any", baseURL }).reranking(MODEL);
  const { ranking } = await rerank({ model, query, documents, topN: documents.length });
  return ranking.map(({ originalIndex, score }) => [originalIndex, score]);
}

await report(
  { client: "ai rerank (@ai-sdk/cohere)", pkg: "@ai-sdk/cohere", name: "baseURL", path: "/v2", ask },
  { client: "ai rerank (@ai-sdk/cohere)", pkg: "@ai-sdk/cohere", name: "baseURL", path: "/cohere/v2", ask },
);
