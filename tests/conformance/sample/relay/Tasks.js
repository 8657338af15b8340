// A page of tasks as an application of Relay has it. Only its compiler reads this.
import { graphql } from 'relay-runtime';

export const page = graphql`
  query TasksPageQuery($count: Int!, $cursor: String) {
    me {
      id
      displayName
    }
    ...Tasks_list @arguments(count: $count, cursor: $cursor)
  }
`;

export const list = graphql`
  fragment Tasks_list on Query
  @refetchable(queryName: "TasksListRefetchQuery")
  @argumentDefinitions(count: { type: "Int", defaultValue: 20 }, cursor: { type: "String" }) {
    tasks(first: $count, after: $cursor) @connection(key: "Tasks_tasks") {
      edges {
        node {
          id
          ...Tasks_row
        }
      }
    }
  }
`;

export const row = graphql`
  fragment Tasks_row on Task @refetchable(queryName: "TasksRowRefetchQuery") {
    id
    title
    status
    budget
    auction {
      id
      status
    }
  }
`;

export const rename = graphql`
  mutation TasksRenameMutation($input: UpdateProfileInput!) {
    updateProfile(input: $input) {
      user {
        id
        displayName
      }
      userErrors {
        code
        message
        field
      }
    }
  }
`;

export const events = graphql`
  subscription TasksEventsSubscription($id: ID!, $after: EventCursor) {
    taskEvents(taskId: $id, after: $after) {
      __typename
      id
      cursor
      kind
    }
  }
`;
