// A client on the official TypeScript SDK, version 1 or 2: lists the tools, makes some calls, prints what came of them.
//
// Imports are resolved from the folder it runs in: `node --input-type=module - TASK < typescript_client.mjs` in .npm, where
// TASK is JSON: {sdk: 1 | 2, server: URL | [command, ...], mode?: 'legacy' | 'auto' | {pin: VERSION}, calls: [[name, arguments], ...]}.

const MODULES = {
    1: ['sdk/client/index.js', 'sdk/client/streamableHttp.js', 'sdk/client/stdio.js'],
    2: ['client', 'client', 'client/stdio'],
};

const { sdk, server, mode, calls } = JSON.parse(process.argv[2]);
const modules = MODULES[sdk].map(name => import(`@modelcontextprotocol/${name}`));
const [{ Client }, { StreamableHTTPClientTransport }, { StdioClientTransport }] = await Promise.all(modules);

const client = new Client({ name: `typescript-sdk-${sdk}`, version: '1' }, mode && { versionNegotiation: { mode } });
await client.connect(
    typeof server === 'string'
        ? new StreamableHTTPClientTransport(new URL(server))
        : new StdioClientTransport({ command: server[0], args: server.slice(1), env: process.env }),
);
const { tools } = await client.listTools();
const results = [];
for (const [name, args] of calls) {
    results.push(await client.callTool({ name, arguments: args }).catch(error => ({ code: error.code, thrown: error.message })));
}
const version = client.getNegotiatedProtocolVersion?.();
console.log(JSON.stringify({ version, tools: tools.map(tool => tool.name), results }));
await client.close();
