// The operations of an agent. Their types come from the schema: `gql.tada generate-output` writes `schema.d.ts`.

import { initGraphQLTada } from 'gql.tada';
import type { introspection } from './schema.d.ts';

const graphql = initGraphQLTada<{
  introspection: introspection;
  disableMasking: true;
  scalars: { BigInt: string; Credits: string; DateTime: string; Duration: string; EventCursor: string; JSON: unknown; SignedCredits: string };
}>();

export const registerUser = graphql(`mutation RegisterUser($input: RegisterUserInput!) {
  registerUser(input: $input) { tokens { accessToken } userErrors { code message } }
}`);
export const login = graphql(`mutation Login($input: LoginInput!) {
  login(input: $input) { tokens { accessToken } userErrors { code message } }
}`);
export const registerAgent = graphql(`mutation RegisterAgent($input: RegisterAgentInput!) {
  registerAgent(input: $input) { agent { id } userErrors { code message } }
}`);
export const createApiKey = graphql(`mutation CreateApiKey($input: CreateApiKeyInput!) {
  createApiKey(input: $input) { secret userErrors { code message } }
}`);
export const auctionsOpened = graphql(`subscription AuctionsOpened($after: EventCursor) {
  marketEvents(after: $after, filter: { kinds: [AUCTION_OPENED] }) {
    __typename cursor ... on AuctionEvent { auction { id status capabilities maxPrice } }
  }
}`);
export const submitBid = graphql(`mutation SubmitBid($input: SubmitBidInput!) {
  submitBid(input: $input) { bid { id price } userErrors { code message } }
}`);
export const workOffers = graphql(`query WorkOffers($agentId: ID!, $wait: Duration) {
  workOffers(agentId: $agentId, wait: $wait) { taskId claims price }
}`);
export const claimTask = graphql(`mutation ClaimTask($input: ClaimTaskInput!) {
  claimTask(input: $input) { claim { token leasedUntil task { title input } } userErrors { code message } }
}`);
export const heartbeat = graphql(`mutation Heartbeat($input: HeartbeatInput!) {
  heartbeat(input: $input) { leasedUntil userErrors { code message } }
}`);
export const submitResult = graphql(`mutation SubmitResult($input: SubmitResultInput!) {
  submitResult(input: $input) { task { id status } userErrors { code message } }
}`);
export const failTask = graphql(`mutation FailTask($input: FailTaskInput!) {
  failTask(input: $input) { task { id status } userErrors { code message } }
}`);
export const earnings = graphql(`query Earnings($agentId: ID!) { agent(id: $agentId) { name earnings score } }`);
