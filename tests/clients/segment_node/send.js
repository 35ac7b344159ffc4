// Sends what an application would, by Segment's own library: $SEGMENT_HOST, $SEGMENT_WRITE_KEY, $SEGMENT_USERS.
import { Analytics } from "@segment/analytics-node";

const { SEGMENT_HOST: host, SEGMENT_WRITE_KEY: writeKey, SEGMENT_USERS: users } = process.env;
const personas = { computation_class: "audience", computation_id: "aud_1", computation_key: "beta" };

const analytics = new Analytics({ host, writeKey, maxRetries: 0, flushAt: 50 });
analytics.on("error", (problem) => {
  console.error(problem);
  process.exitCode = 1;
});
for (let number = 0; number < Number(users); number++) {
  const userId = `u${number}`;
  analytics.identify({ userId, traits: { beta: number % 2 === 0 }, context: { personas } });
  analytics.track({ userId, event: "Order Completed", properties: { total: 12.5 } });
  analytics.group({ userId, groupId: "acme", traits: { plan: "enterprise" } });
}
await analytics.flush();

// An audience that is left is told by a track call, after the identify calls went out.
analytics.track({ userId: "u0", event: "Audience Exited", properties: { beta: false }, context: { personas } });
await analytics.closeAndFlush();
