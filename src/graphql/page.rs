//! Lists as Relay connections: pages by keyset, so that a page costs the same however far it is into the list, and an item that
//! comes or goes elsewhere moves nothing.
//!
//! A cursor is base64url of `version.order.key.id`. It is read only where the list has the order that it was made for.

use std::sync::Arc;

use async_graphql::{
    Positioned, SimpleObject, VisitorContext,
    parser::types::{Field, VariableDefinition},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, FromQueryResult, Order, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait, Select,
    sea_query::{Alias, Asterisk, Expr, Func, Query, SelectStatement, SimpleExpr},
};
use uuid::Uuid;

use crate::error::{Error, Result};

/// Items of a page at most.
pub const MAX_PAGE: i32 = 100;
/// Items of a page when the query does not say.
pub const DEFAULT_PAGE: i32 = 20;
/// How far `totalCount` counts.
pub(super) const MAX_COUNT: u64 = 10_000;

/// Where a page is in its list.
#[derive(Clone, Debug, SimpleObject)]
pub(super) struct PageInfo {
    /// Whether there are items behind this page.
    pub has_next_page: bool,
    /// Whether there are items before this page.
    pub has_previous_page: bool,
    /// The cursor of the first item; null on an empty page.
    pub start_cursor: Option<String>,
    /// The cursor of the last item; null on an empty page.
    pub end_cursor: Option<String>,
}

/// The place of an item in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// The value of the order's key; 0 where the id alone is the order.
    key: i64,
    id: Uuid,
}

/// The place of an item in a list, which is written out only where somebody asks for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    name: &'static str,
    descending: bool,
    place: Place,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, Place { key, id }) = (name(self.name, self.descending), self.place);
        f.write_str(&URL_SAFE_NO_PAD.encode(format!("c1.{name}.{key}.{}", entity::id::encode(id))))
    }
}

/// The name of an order and its direction, as cursors have it.
fn name(order: &str, descending: bool) -> String {
    format!("{order}{}", if descending { '-' } else { '+' })
}

/// The order of a list: by a column of whole numbers and then the id, or by the id alone, which is the order of creation.
pub(super) struct Sort<E: EntityTrait> {
    /// Tells this order from the others in cursors.
    pub name: &'static str,
    pub key: Option<E::Column>,
    pub id: E::Column,
    pub descending: bool,
    /// The values of the two columns in a row.
    pub place: fn(&E::Model) -> (i64, Uuid),
}

impl<E: EntityTrait> Sort<E> {
    fn name(&self) -> String {
        name(self.name, self.descending)
    }

    fn cursor(&self, row: &E::Model) -> Cursor {
        let (key, id) = (self.place)(row);
        Cursor { name: self.name, descending: self.descending, place: Place { key, id } }
    }

    fn read(&self, field: &str, cursor: &str) -> Result<Place> {
        let invalid = || Error::invalid(field, "is not a cursor of this list in this order");
        let text =
            URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(invalid)?;
        let mut parts = text.split('.');
        let (version, name, key, id) = (parts.next(), parts.next(), parts.next(), parts.next());
        if version != Some("c1") || name != Some(self.name().as_str()) || parts.next().is_some() {
            return Err(invalid());
        }
        let key = key.and_then(|key| key.parse().ok()).ok_or_else(invalid)?;
        let id = id.and_then(|id| entity::id::decode(id).ok()).ok_or_else(invalid)?;
        Ok(Place { key, id })
    }

    /// Whether a row is strictly behind `place` when the list is read in the order, or against it.
    fn beyond(&self, place: Place, forward: bool) -> SimpleExpr {
        let (columns, values): (SimpleExpr, SimpleExpr) = match self.key {
            Some(key) => (
                Expr::tuple([Expr::col(key.as_column_ref()), Expr::col(self.id.as_column_ref())]),
                Expr::tuple([Expr::value(place.key), Expr::value(place.id)]),
            ),
            None => (Expr::col(self.id.as_column_ref()), Expr::value(place.id)),
        };
        if forward == self.descending { columns.lt(values) } else { columns.gt(values) }
    }

    fn orders(&self, forward: bool) -> (Order, impl Iterator<Item = E::Column>) {
        let order = if forward == self.descending { Order::Desc } else { Order::Asc };
        (order, self.key.into_iter().chain([self.id]))
    }
}

/// The four arguments of a list as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct PageArgs {
    pub first: Option<i32>,
    pub after: Option<String>,
    pub last: Option<i32>,
    pub before: Option<String>,
}

/// What part of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Window {
    forward: bool,
    size: u64,
    after: Option<Place>,
    before: Option<Place>,
}

impl PageArgs {
    /// Checks the arguments against the rules of lists and the order of this one.
    pub(super) fn window<E: EntityTrait>(&self, sort: &Sort<E>) -> Result<Window> {
        let size = |field: &str, size: i32| match u64::try_from(size) {
            Ok(rows) if (1..=MAX_PAGE).contains(&size) => Ok(rows),
            Ok(_) | Err(_) => Err(Error::invalid(field, format!("must be from 1 to {MAX_PAGE}"))),
        };
        let (forward, size) = match (self.first, self.last) {
            (Some(_), Some(_)) => return Err(Error::invalid("last", "must not be given together with first")),
            (Some(first), None) => (true, size("first", first)?),
            (None, Some(last)) => (false, size("last", last)?),
            (None, None) => (true, size("first", DEFAULT_PAGE)?),
        };
        let after = self.after.as_deref().map(|cursor| sort.read("after", cursor)).transpose()?;
        let before = self.before.as_deref().map(|cursor| sort.read("before", cursor)).transpose()?;
        Ok(Window { forward, size, after, before })
    }
}

/// The cost of a list field: what its items cost, as often as it answers them at most. It reads the arguments itself, because a
/// complexity expression that names an argument refuses queries that leave its variable out.
pub(super) fn list_cost(
    ctx: &VisitorContext<'_>,
    variables: &[Positioned<VariableDefinition>],
    field: &Field,
    each: usize,
) -> usize {
    let size = |name| ctx.param_value::<Option<i32>>(variables, field, name, None).ok().flatten();
    let size = size("first").or_else(|| size("last")).unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
    usize::try_from(size).unwrap_or(1).saturating_mul(each).saturating_add(2)
}

/// One page of rows with what its connection needs.
#[derive(Clone, Debug)]
pub(super) struct Page<M> {
    /// The rows in the order of the list, each with its cursor.
    pub rows: Vec<(Cursor, M)>,
    pub has_next: bool,
    pub has_previous: bool,
    /// Counts the whole list up to one more than the cap.
    pub count: Option<Arc<SelectStatement>>,
}

impl<M> Default for Page<M> {
    fn default() -> Self {
        Self { rows: Vec::new(), has_next: false, has_previous: false, count: None }
    }
}

impl<M> Page<M> {
    /// The same page of what `wrap` makes of its rows.
    pub(super) fn map<N>(self, wrap: impl Fn(M) -> N) -> Page<N> {
        let rows = self.rows.into_iter().map(|(cursor, row)| (cursor, wrap(row))).collect();
        Page { rows, has_next: self.has_next, has_previous: self.has_previous, count: self.count }
    }

    /// Where this page is.
    pub(super) fn info(&self) -> PageInfo {
        PageInfo {
            has_next_page: self.has_next,
            has_previous_page: self.has_previous,
            start_cursor: self.rows.first().map(|(cursor, _)| cursor.to_string()),
            end_cursor: self.rows.last().map(|(cursor, _)| cursor.to_string()),
        }
    }
}

impl Window {
    /// Makes a page of the rows that were found reading from its start: one more than it holds says that there is more.
    fn page<E: EntityTrait>(self, sort: &Sort<E>, found: Vec<E::Model>, count: SelectStatement) -> Page<E::Model> {
        self.page_of(sort, found, |row| row, Some(Arc::new(count)))
    }

    /// How many rows make the first page, with one more to say whether there are more; `None` where this is another page.
    pub(super) fn most_from_start(self) -> Option<u64> {
        (self.forward && self.after.is_none() && self.before.is_none()).then_some(self.size + 1)
    }

    /// The same of rows that come with something.
    pub(super) fn page_of<E: EntityTrait, T>(
        self,
        sort: &Sort<E>,
        mut found: Vec<T>,
        row: fn(&T) -> &E::Model,
        count: Option<Arc<SelectStatement>>,
    ) -> Page<T> {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let more = found.len() > size;
        found.truncate(size);
        if !self.forward {
            found.reverse();
        }
        let (has_next, has_previous) =
            if self.forward { (more, self.after.is_some()) } else { (self.before.is_some(), more) };
        let rows = found.into_iter().map(|item| (sort.cursor(row(&item)), item)).collect();
        Page { rows, has_next, has_previous, count }
    }

    fn narrow<E: EntityTrait>(self, sort: &Sort<E>, mut list: Select<E>) -> Select<E> {
        if let Some(after) = self.after {
            list = list.filter(sort.beyond(after, true));
        }
        if let Some(before) = self.before {
            list = list.filter(sort.beyond(before, false));
        }
        list
    }

    /// Reads this page of `list`, which has its filters and no order.
    pub(super) async fn read<E: EntityTrait>(
        self,
        db: &impl ConnectionTrait,
        list: Select<E>,
        sort: &Sort<E>,
    ) -> Result<Page<E::Model>> {
        let count = counting(&list);
        let mut rows = self.narrow(sort, list);
        let (order, columns) = sort.orders(self.forward);
        for column in columns {
            rows = rows.order_by(column, order.clone());
        }
        let found = rows.limit(self.size + 1).all(db).await?;
        Ok(self.page(sort, found, count))
    }

    /// Reads this page of each of several lists in one statement: the rows of `lists` that have the same `parent` are one list.
    /// Answers a page for each of `parents`, in their order.
    pub(super) async fn read_each<E, K>(
        self,
        db: &impl ConnectionTrait,
        lists: Select<E>,
        sort: &Sort<E>,
        parent: E::Column,
        parents: &[K],
        of: fn(&E::Model) -> K,
    ) -> Result<Vec<Page<E::Model>>>
    where
        E: EntityTrait,
        K: Copy + PartialEq + Into<sea_orm::Value>,
    {
        if let [parent_key] = parents {
            // One list needs no numbering, which not every database stops when it has enough.
            return Ok(vec![self.read(db, lists.filter(parent.eq(*parent_key)), sort).await?]);
        }
        let (order, columns) = sort.orders(self.forward);
        let direction = if order == Order::Desc { "DESC" } else { "ASC" };
        let orders: Vec<String> =
            columns.map(|column| format!("{} {direction}", sea_orm::IdenStatic::as_str(&column))).collect();
        let place = format!(
            "ROW_NUMBER() OVER (PARTITION BY {} ORDER BY {})",
            sea_orm::IdenStatic::as_str(&parent),
            orders.join(", ")
        );
        let numbered = self
            .narrow(sort, lists.clone())
            .filter(parent.is_in(parents.iter().copied()))
            .expr_as(Expr::cust(place), "place")
            .into_query();
        let place = Expr::col(Alias::new("place"));
        let few = Query::select()
            .column(Asterisk)
            .from_subquery(numbered, Alias::new("numbered"))
            .and_where(place.clone().lte(self.size + 1))
            .order_by_expr(place, Order::Asc)
            .to_owned();
        let rows = db.query_all(&few).await?;
        let rows: Vec<E::Model> =
            rows.iter().map(|row| E::Model::from_query_result(row, "")).collect::<std::result::Result<_, _>>()?;
        Ok(parents
            .iter()
            .map(|key| {
                let found = rows.iter().filter(|row| of(row) == *key).cloned().collect();
                self.page(sort, found, counting(&lists.clone().filter(parent.eq(*key))))
            })
            .collect())
    }
}

/// A statement that counts the rows of a list up to one more than the cap.
pub(super) fn counting<E: EntityTrait>(list: &Select<E>) -> SelectStatement {
    let rows = list.clone().select_only().expr_as(Expr::value(1), "one").limit(MAX_COUNT + 1).into_query();
    Query::select().expr(Func::count(Expr::col(Asterisk))).from_subquery(rows, Alias::new("counted")).to_owned()
}

/// Declares the connection of a noun with its edge.
macro_rules! connection {
    ($(#[$doc:meta])* $connection:ident, $(#[$edge_doc:meta])* $edge:ident, $node:ident, $model:ty) => {
        pub(super) struct $edge {
            cursor: $crate::graphql::page::Cursor,
            node: $node,
        }

        $(#[$edge_doc])*
        #[async_graphql::Object]
        impl $edge {
            /// The place of the item in this list, for `after` and `before`.
            async fn cursor(&self) -> String {
                self.cursor.to_string()
            }

            /// The item.
            async fn node(&self) -> &$node {
                &self.node
            }
        }

        pub(super) struct $connection {
            edges: Vec<$edge>,
            info: $crate::graphql::page::PageInfo,
            count: Option<std::sync::Arc<sea_orm::sea_query::SelectStatement>>,
        }

        impl From<$crate::graphql::page::Page<$model>> for $connection {
            fn from(page: $crate::graphql::page::Page<$model>) -> Self {
                let info = page.info();
                let edges =
                    page.rows.into_iter().map(|(cursor, row)| $edge { cursor, node: $node::from(row) }).collect();
                Self { edges, info, count: page.count }
            }
        }

        $(#[$doc])*
        #[async_graphql::Object]
        impl $connection {
            /// The items of this page with their cursors.
            #[graphql(complexity = "child_complexity")]
            async fn edges(&self) -> &[$edge] {
                &self.edges
            }

            /// The items of this page without their cursors.
            #[graphql(complexity = "child_complexity")]
            async fn nodes(&self) -> Vec<&$node> {
                self.edges.iter().map(|edge| &edge.node).collect()
            }

            /// Where this page is in its list.
            async fn page_info(&self) -> &$crate::graphql::page::PageInfo {
                &self.info
            }

            /// How many items the whole list has, counted up to 10,000; null when there are more. It is counted only when it is asked for.
            async fn total_count(
                &self,
                ctx: &async_graphql::Context<'_>,
            ) -> Option<$crate::graphql::error::Answer<i32>> {
                let work = $crate::graphql::page::total(ctx, self.count.clone());
                $crate::graphql::context::maybe(ctx, work).await
            }
        }
    };
}
pub(super) use connection;

/// The number of items of a list, unless it passes the cap.
pub(super) async fn total(
    ctx: &async_graphql::Context<'_>,
    count: Option<Arc<SelectStatement>>,
) -> Result<Option<i32>> {
    use super::context::Ask;
    let Some(count) = count else { return Ok(Some(0)) };
    let count = ctx.loaders().counts(count).await?;
    Ok(i32::try_from(count).ok().filter(|count| i64::from(*count) <= i64::try_from(MAX_COUNT).unwrap_or(i64::MAX)))
}
