import { readFileSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { type Plugin, defineConfig } from 'vite';

// While one develops, the pages come from Vite and everything else from a running service.
const service = process.env.ZEROSTATE_URL ?? 'http://127.0.0.1:8080';

/** Puts a compressed file beside each that was built: what the binary carries. */
function compressed(): Plugin {
  let folder = 'dist';
  return {
    name: 'compressed',
    apply: 'build',
    configResolved(config) {
      folder = path.resolve(config.root, config.build.outDir);
    },
    async closeBundle() {
      for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
        if (!entry.isFile() || entry.name.startsWith('.') || entry.name.endsWith('.gz')) continue;
        const file = path.join(entry.parentPath, entry.name);
        writeFileSync(`${file}.gz`, gzipSync(readFileSync(file), { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  // Relative, so that the pages work under whatever path a proxy gives them.
  base: './',
  plugins: [compressed()],
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    // The largest part is Monaco, the editor of GraphiQL.
    chunkSizeWarningLimit: 5_000,
    license: { fileName: 'licences.md' },
    rollupOptions: {
      input: { console: 'index.html', graphiql: 'graphiql.html' },
      // Packages of React mark what is for browsers; all of this is.
      onLog: (level, log, handle) => {
        if (log.code !== 'MODULE_LEVEL_DIRECTIVE') handle(level, log);
      },
    },
  },
  worker: { format: 'es' },
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  server: {
    proxy: {
      '/graphql': { target: service, ws: true },
      '/agents': service,
      '/health': service,
      '/ready': service,
      '/metrics': service,
    },
  },
});
