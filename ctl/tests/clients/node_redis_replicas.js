// node-redis's cluster client with `useReplicas`: KEY COUNT NODE… -> prints ok after COUNT rounds.
// What is read is never older than what was acknowledged before.

const { createCluster } = require('redis');

const [key, count, ...nodes] = process.argv.slice(2);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function main() {
  const rootNodes = nodes.map((node) => ({ url: `redis://${node}` }));
  const cluster = createCluster({ rootNodes, useReplicas: true });
  cluster.on('error', () => {});
  await cluster.connect();

  // Its queue waits for a dead node without an end; a call that waits too long is given up.
  const late = () => pause(2000).then(() => { throw new Error('late'); });
  let [rounds, number] = [0, 0];
  while (rounds < Number(count)) {
    number += 1;
    try {
      await Promise.race([cluster.set(key, String(number)), late()]);
      const read = Number(await Promise.race([cluster.get(key), late()]));
      // A call that was given up may still be on its way.
      if (read < number) throw new TypeError(`${number} was acknowledged, ${read} is read`);
      rounds += 1;
    } catch (error) {
      if (error instanceof TypeError) throw error;
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
