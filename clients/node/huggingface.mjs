// Hugging Face's InferenceClient: text classification of pairs, whose probabilities make our score.
import { InferenceClient } from "@huggingface/inference";
import { report } from "./probe.mjs";

const GAINS = { exact: 1.0, substitute: 0.5 }; // of the default bundle's labels, as GET /v1/models has them

async function ask(endpointUrl, query, documents) {
  const client = new InferenceClient("any", { endpointUrl });
  const ranking = [];
  for (const [index, document] of documents.entries()) {
    const classes = await client.textClassification({ inputs: [[query, document]] });
    ranking.push([index, classes.reduce((sum, { label, score }) => sum + (GAINS[label] ?? 0) * score, 0)]);
  }
  return ranking.sort((one, other) => other[1] - one[1]);
}

await report({
  client: "@huggingface/inference InferenceClient", pkg: "@huggingface/inference", name: "endpointUrl", path: "", ask,
});
