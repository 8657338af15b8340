// Makes the typed client: the schema of the service gives the types, `operations.graphql` what is asked of it.

import { readFileSync, writeFileSync } from 'node:fs';
import { codegen } from '@graphql-codegen/core';
import * as documents from '@graphql-codegen/typed-document-node';
import * as operations from '@graphql-codegen/typescript-operations';
import { parse } from 'graphql';

const [filename, schema, document] = ['src/market.ts', '../../../schema.graphql', '../operations.graphql'];
const read = (file) => parse(readFileSync(file, 'utf8'));
const config = { scalars: { JSON: 'unknown' }, defaultScalarType: 'string', useTypeImports: true };
const plugins = { pluginMap: { operations, documents }, plugins: [{ operations: {} }, { documents: {} }] };
const input = { schema: read(schema), documents: [{ document: read(document) }] };
writeFileSync(filename, await codegen({ filename, config, ...plugins, ...input }));
