// What tools send, as fast as it is answered by $LOAD_CONNECTIONS, or at $LOAD_RATE a second where that is set.
import http from "k6/http";
import { SharedArray } from "k6/data";
import exec from "k6/execution";

const connections = Number(__ENV.LOAD_CONNECTIONS);
const rate = Number(__ENV.LOAD_RATE);
const duration = `${__ENV.LOAD_SECONDS}s`;

export const options = {
  scenarios: {
    load: rate
      ? { executor: "constant-arrival-rate", rate, duration, preAllocatedVUs: connections }
      : { executor: "constant-vus", vus: connections, duration },
  },
  discardResponseBodies: true,
  summaryTrendStats: ["p(99)"],
};

const headers = { "content-type": "application/json", authorization: `Bearer ${__ENV.LOAD_TOKEN}` };
const personas = { computation_class: "audience", computation_id: "aud_1", computation_key: "beta" };
const batches = new SharedArray("batches", () =>
  Array.from({ length: 10 }, (_, cohort) => {
    const cohortId = `bench${cohort}`;
    const batch = Array.from({ length: Number(__ENV.LOAD_MEMBERS) }, (_, number) => {
      return { userId: `user-${cohort}-${number}@example.com`, cohortId, cohortName: "Bench", value: true };
    });
    return JSON.stringify({ environmentId: "production", batch });
  }),
);

const requests = {
  identify: (number) => {
    const call = { type: "identify", userId: `user-${number}`, traits: { beta: true }, context: { personas } };
    return ["/v1/identify", JSON.stringify(call)];
  },
  batch: (number) => ["/api/v2/segment-targets/amplitude", batches[number % batches.length]],
};

export default function () {
  const [path, body] = requests[__ENV.LOAD_OF](exec.scenario.iterationInTest);
  http.post(`${__ENV.LOAD_URL}${path}`, body, { headers });
}

export function handleSummary({ metrics }) {
  const said = {
    requests: metrics.http_reqs.values.count,
    failed: metrics.http_req_failed.values.passes,
    dropped: metrics.dropped_iterations ? metrics.dropped_iterations.values.count : 0,
    p99_ms: metrics.http_req_duration.values["p(99)"],
  };
  return { stdout: JSON.stringify(said) };
}
