// What the Node programs of this folder share: a row, and how it is asked and reported, as ../probe.py does it.
// node cohere.mjs http://127.0.0.1:8000 "wireless mouse" "Mouse pad" "Wireless mouse"
import { readFileSync } from "node:fs";

export const MODEL = "rerank-v3.5"; // a model of somebody else

export async function report(...rows) {
  const [url, query, ...documents] = process.argv.slice(2);
  for (const { client, pkg, name, path, ask } of rows) {
    const told = { client, version: versionOf(pkg), name, value: `{url}${path}` };
    try {
      told.ranking = await ask(url + path, query, documents);
    } catch (error) {
      told.error = `${error.name}: ${error.message}`;
    }
    console.log(JSON.stringify(told));
  }
}

export const byText = (documents, results) => results.map(([text, score]) => [documents.indexOf(text), score]);

function versionOf(pkg) {
  return JSON.parse(readFileSync(new URL(`node_modules/${pkg}/package.json`, import.meta.url), "utf8")).version;
}
