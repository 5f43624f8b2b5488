// The OpenAPI 3.1 document of the service's API, made from the routes and their schemas.

import { z } from 'zod';
import { errorSchema } from './refusal.ts';
import { type Route, routes } from './routes.ts';

/** `spec`: the JSON schema of a VM's spec, which the API's own folder does not know. */
export function openApiDocument(options: { version: string; spec: object }): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes)
    paths[route.path] = { ...paths[route.path], [route.method.toLowerCase()]: operation(route) };
  return {
    openapi: '3.1.0',
    info: {
      title: 'COLO',
      version: options.version,
      description:
        'The API of colod. Every node answers for the whole cluster. Over TLS a caller shows a certificate of the ' +
        "cluster's authority, or a token; on the Unix socket of a node it is who may open the socket. Each " +
        'has a role: viewer, operator, admin (x-colo-role says which a call needs), or node, which may do everything.',
    },
    security: [{ certificate: [] }, { token: [] }],
    components: {
      securitySchemes: {
        certificate: { type: 'mutualTLS', description: "A certificate of the cluster's authority (`colo join`)." },
        token: { type: 'http', scheme: 'bearer', description: 'Of the file that `api.tokens` names (`colo token`).' },
      },
      schemas: { Error: jsonSchema(errorSchema), Spec: options.spec },
    },
    paths,
  };
}

/** JSON schema of what is sent (`input`) or of what is answered. */
export function jsonSchema(schema: z.ZodType, io: 'input' | 'output' = 'output'): object {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: 'any' });
  return rest;
}

function operation(route: Route): Record<string, unknown> {
  const type = route.stream === true ? 'text/event-stream' : 'application/json';
  const body =
    route.body === undefined ? {} : { requestBody: { required: true, content: json(bodySchema(route.body)) } };
  return {
    operationId: route.id,
    summary: route.summary,
    tags: [route.needs === 'node' ? 'node' : 'cluster'],
    description:
      route.needs === 'node' ? 'For nodes of the cluster.' : `For the role ${route.needs} and those above it.`,
    'x-colo-role': route.needs,
    // Nobody else has a certificate of a node.
    ...(route.needs === 'node' ? { security: [{ certificate: [] }] } : {}),
    parameters: [...pathParameters(route), ...queryParameters(route)],
    ...body,
    responses: {
      '200': { description: 'Done.', content: { [type]: { schema: jsonSchema(route.answer) } } },
      default: { description: 'Refused, or failed.', content: json({ $ref: '#/components/schemas/Error' }) },
    },
  };
}

function json(schema: object): object {
  return { 'application/json': { schema } };
}

/** A spec has its own schema, under components. */
function bodySchema(body: z.ZodType): object {
  const schema = jsonSchema(body, 'input') as { properties?: Record<string, object> };
  if (schema.properties?.['spec'] === undefined) return schema;
  return { ...schema, properties: { ...schema.properties, spec: { $ref: '#/components/schemas/Spec' } } };
}

function pathParameters(route: Route): object[] {
  return [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    ...{ name, in: 'path', required: true, schema: { type: 'string' } },
  }));
}

function queryParameters(route: Route): object[] {
  if (route.query === undefined) return [];
  const { properties = {} } = jsonSchema(route.query, 'input') as { properties?: Record<string, object> };
  return Object.entries(properties).map(([name, schema]) => ({ name, in: 'query', required: false, schema }));
}
