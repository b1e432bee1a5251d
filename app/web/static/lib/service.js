// What this service can do, as its own OpenAPI document says: the page offers what is there, and nothing else.

import { useEffect, useState } from "./html.js";
import { get } from "./api.js";

let asked = null;
const document = () => (asked ??= get("/openapi.json").catch((error) => {
  asked = null;
  throw error;
}));

/** Options that have a place of their own on the page. */
const PLACED = new Set(["dataset_id", "name", "preset", "fix"]);

/** A schema without its "or null". */
function plain(schema, components) {
  const found = schema.$ref ? components[schema.$ref.split("/").pop()] : schema;
  const choices = found.anyOf?.filter((choice) => choice.type !== "null");
  return choices?.length === 1 ? { ...found, ...plain(choices[0], components), nullable: true } : found;
}

function option(name, schema, components) {
  const { type, enum: values, const: only, default: preset, description, minimum, maximum, nullable } = plain(schema, components);
  return { name, type, values: values ?? (only === undefined ? null : [only]), preset, description, minimum, maximum, nullable };
}

export async function describe() {
  const { paths, components } = await document();
  const schemas = components?.schemas ?? {};
  const job = paths["/v1/jobs"].post.requestBody.content["application/json"].schema;
  const properties = plain(job, schemas).properties;
  const restore = paths["/v1/models/{model}/super-resolve"].post;
  const parameters = restore.parameters ?? [];
  const query = parameters.filter((parameter) => parameter.in === "query");
  const named = (all) => Object.fromEntries(all.map((one) => [one.name, { ...option(one.name, one.schema, schemas), description: one.description ?? one.schema.description }]));
  const model = parameters.find((parameter) => parameter.in === "path");
  return {
    presets: option("preset", properties.preset, schemas).values,
    jobOptions: Object.entries(properties)
      .filter(([name]) => !PLACED.has(name))
      .map(([name, schema]) => option(name, schema, schemas))
      .filter((one) => one.values?.length !== 1),
    formats: Object.keys(restore.responses["200"].content).filter((type) => type.startsWith("image/")),
    restoreOptions: named(query),
    cancelsOperations: "/v1/operations/{operation_id}/cancel" in paths,
    exportsOnnx: "/v1/models/{name}/versions/{version}/onnx" in paths,
    picksModel: /\bauto\b/.test(`${model?.description ?? ""} ${JSON.stringify(model?.schema ?? {})}`),
  };
}

/** The description once it is there, null before. */
export function useService() {
  const [told, setTold] = useState(null);
  useEffect(() => void describe().then(setTold, () => setTold(null)), []);
  return told;
}
