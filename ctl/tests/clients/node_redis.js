// node-redis's cluster client: KEY COUNT NODE… -> prints ok after COUNT acknowledged increments.

const { createCluster } = require('redis');

const [key, count, ...nodes] = process.argv.slice(2);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function main() {
  const cluster = createCluster({ rootNodes: nodes.map((node) => ({ url: `redis://${node}` })) });
  cluster.on('error', () => {});
  await cluster.connect();

  await cluster.set('node-redis:plain', 'value');
  if ((await cluster.get('node-redis:plain')) !== 'value') throw new Error('GET after SET');

  let acknowledged = 0;
  while (acknowledged < Number(count)) {
    try {
      // Its queue waits for a dead node without an end; a call that waits too long is given up.
      const late = pause(2000).then(() => { throw new Error('late'); });
      await Promise.race([cluster.incr(key), late]);
      acknowledged += 1;
    } catch (error) {
      await pause(50);
    }
    await pause(5);
  }
  console.log('ok');
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
