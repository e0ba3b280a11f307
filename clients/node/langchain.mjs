// LangChain's reranker for Cohere, which takes a client of Cohere's SDK.
import { CohereRerank } from "@langchain/cohere";
import { CohereClient } from "cohere-ai";
import { byText, MODEL, report } from "./probe.mjs";

async function ask(baseUrl, query, documents) {
  const client = new CohereClient({ token: "any", baseUrl });
  const compressor = new CohereRerank({ client, model: MODEL, topN: documents.length });
  const given = documents.map((pageContent) => ({ pageContent, metadata: {} }));
  const ranked = await compressor.compressDocuments(given, query);
  return byText(documents, ranked.map((document) => [document.pageContent, document.metadata.relevanceScore]));
}

await report({ client: "@langchain/cohere CohereRerank", pkg: "@langchain/cohere", name: "baseUrl", path: "/cohere", ask });
