import { defineConfig } from 'vite';

// While one develops, the pages come from Vite and everything else from a running service.
const service = process.env.ZEROSTATE_URL ?? 'http://127.0.0.1:8080';

export default defineConfig({
  // Relative, so that the pages work under whatever path a proxy gives them.
  base: './',
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    rollupOptions: { input: { console: 'index.html', graphiql: 'graphiql.html' } },
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
