// Shows openapi.json to people: one section for each method of each address.
"use strict";

function element(name, text, className) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function nameOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.type === "array") return `list of ${nameOf(schema.items)}`;
  if (schema.anyOf) return schema.anyOf.map(nameOf).filter((name) => name !== "null").join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  return schema.format === "binary" ? "file" : schema.type || "";
}

function contentOf(content) {
  return Object.entries(content || {})
    .map(([type, { schema }]) => [type, nameOf(schema)].filter(Boolean).join(": "))
    .join("; ");
}

function definitions(title, rows) {
  if (!rows.length) return [];
  const list = element("dl");
  for (const [term, description] of rows) {
    list.append(element("dt", term), element("dd", description));
  }
  return [element("h3", title), list];
}

function sectionOf(path, method, operation) {
  const section = element("section", "", "operation");
  const heading = element("h2");
  heading.append(element("span", method.toUpperCase(), "method"), element("code", path));
  const parameters = (operation.parameters || []).map(({ name, in: where, schema, description }) => [
    `${name} (${where})`,
    [nameOf(schema), description].filter(Boolean).join("; "),
  ]);
  const body = operation.requestBody ? [["body", contentOf(operation.requestBody.content)]] : [];
  const answers = Object.entries(operation.responses)
    .filter(([status]) => status !== "422" || operation.responses[status].description !== "Validation Error")
    .map(([status, { description, content }]) => [
      status,
      [description, contentOf(content)].filter(Boolean).join("; "),
    ]);
  section.append(
    heading,
    element("p", operation.description || operation.summary),
    ...definitions("Takes", [...parameters, ...body]),
    ...definitions("Answers", answers),
  );
  return section;
}

function fieldsOf(name, schema) {
  const section = element("section", "", "operation");
  const rows = Object.entries(schema.properties || {}).map(([field, one]) => [
    field,
    [nameOf(one), one.description].filter(Boolean).join("; "),
  ]);
  section.id = name;
  section.append(element("h2", name), element("p", schema.description || ""), ...definitions("Fields", rows));
  return section;
}

async function show() {
  const main = document.getElementById("operations");
  const answer = await fetch("/openapi.json");
  if (!answer.ok) {
    main.append(element("p", `openapi.json cannot be read: status ${answer.status}.`));
    return;
  }
  const api = await answer.json();
  document.getElementById("version").textContent = `${api.info.summary} Version ${api.info.version}.`;
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      main.append(sectionOf(path, method, operation));
    }
  }
  for (const [name, schema] of Object.entries(api.components.schemas)) {
    if (!/Validation/.test(name)) main.append(fieldsOf(name, schema));
  }
}

show();
