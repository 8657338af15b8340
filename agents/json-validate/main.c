/*
 * json.validate: holds a value against a JSON Schema (draft 2020-12, the subset below).
 *
 * Input: {schema, value}. Without PRO: type, enum, const, properties, required, items; the first error ends the search. With
 * PRO all errors are given (up to 100), and there are also additionalProperties, minProperties, maxProperties, minItems,
 * maxItems, uniqueItems, minLength, maxLength, minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf, allOf,
 * anyOf, oneOf, not, and $ref within the document.
 *
 * A keyword that asserts something and is not supported fails the agent: a value must never be called valid because a rule
 * was not understood.
 */
#include "../common/agent.h"

#include <math.h>
#include <string.h>

#if PRO
#define MAX_ERRORS 100
#else
#define MAX_ERRORS 1
#endif

/* Where in the value we are: a list from the innermost name outwards. */
struct path {
    const struct path *outer;
    struct slice name;
    size_t index;
    bool named;
};

struct error {
    struct slice path;
    struct slice message;
};

static const struct json *root;
static struct error errors[MAX_ERRORS];
static size_t error_count;
static bool truncated;
/* How many trials we are within, and the errors of the innermost one. */
static size_t trials;
static size_t trial_errors;

/* Text that grows: paths and messages are put together in it. */
static char draft[4096];
static size_t draft_len;

static void add(struct slice text) {
    size_t room = sizeof draft - draft_len;
    size_t len = text.len < room ? text.len : room;
    while (len < text.len && len > 0 && ((unsigned char)text.at[len] & 0xc0) == 0x80) {
        len--; /* no half letters at the end */
    }
    memcpy(draft + draft_len, text.at, len);
    draft_len += len;
}

static void add_text(const char *text) {
    add((struct slice){text, strlen(text)});
}

static void add_number(size_t number) {
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    add((struct slice){digits + at, sizeof digits - at});
}

static struct slice keep(void) {
    char *copy = take(draft_len + 1, 1);
    memcpy(copy, draft, draft_len);
    struct slice kept = {copy, draft_len};
    draft_len = 0;
    return kept;
}

/* A JSON Pointer, RFC 6901. */
static void add_path(const struct path *path) {
    if (path == NULL) {
        return;
    }
    add_path(path->outer);
    add_text("/");
    if (!path->named) {
        add_number(path->index);
        return;
    }
    for (size_t i = 0; i < path->name.len; i++) {
        char c = path->name.at[i];
        add(c == '~' ? (struct slice){"~0", 2} : c == '/' ? (struct slice){"~1", 2} : (struct slice){&path->name.at[i], 1});
    }
}

/* Takes the message in the draft. */
static void report(const struct path *path) {
    if (trials > 0) {
        draft_len = 0;
        trial_errors++;
        return;
    }
    struct slice message = keep();
    if (error_count == MAX_ERRORS) {
        truncated = true;
        return;
    }
    add_path(path);
    errors[error_count++] = (struct error){keep(), message};
}

static bool enough(void) {
    if (trials > 0) {
        return trial_errors > 0;
    }
    return error_count == MAX_ERRORS && (!PRO || truncated);
}

static const char *const SUPPORTED[] = {
    "type", "enum", "const", "properties", "required", "items",
#if PRO
    "additionalProperties", "minProperties", "maxProperties", "minItems", "maxItems", "uniqueItems", "minLength",
    "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "allOf", "anyOf", "oneOf",
    "not", "$ref",
#endif
};

/* Keywords that describe and never assert. */
static const char *const SILENT[] = {
    "$schema", "$id", "$comment", "$defs", "definitions", "$anchor", "title", "description", "default", "examples",
    "deprecated", "readOnly", "writeOnly", "format", "contentEncoding", "contentMediaType",
};

static bool listed(struct slice name, const char *const *list, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (is(name, list[i])) {
            return true;
        }
    }
    return false;
}

static bool has_type(const struct json *value, struct slice type) {
    if (is(type, "integer")) {
        return value->kind == J_NUMBER && value->number == floor(value->number);
    }
    for (int kind = J_NULL; kind <= J_OBJECT; kind++) {
        if (is(type, kind_name((enum kind)kind))) {
            return value->kind == (enum kind)kind;
        }
    }
    fail_about("the schema names an unknown type", type);
}

static void check_type(const struct json *type, const struct json *value, const struct path *path) {
    const struct json *one = type->kind == J_ARRAY ? type->first : type;
    bool any = false;
    for (const struct json *each = one; each != NULL; each = type->kind == J_ARRAY ? each->next : NULL) {
        if (each->kind != J_STRING) {
            fail("the schema has a type that is not a string");
        }
        any |= has_type(value, each->text);
    }
    if (any) {
        return;
    }
    add_text("expected ");
    for (const struct json *each = one; each != NULL; each = type->kind == J_ARRAY ? each->next : NULL) {
        if (each != one) {
            add_text(" or ");
        }
        add(each->text);
    }
    add_text(", found ");
    add_text(kind_name(value->kind));
    report(path);
}

static const struct json *member_named(const struct json *object, struct slice name) {
    const struct json *found = NULL;
    for (const struct json *child = object->first; child != NULL; child = child->next) {
        if (same(child->name, name)) {
            found = child;
        }
    }
    return found;
}

static void validate(const struct json *schema, const struct json *value, const struct path *path, int depth);

static void check_object(const struct json *schema, const struct json *value, const struct path *path, int depth) {
    const struct json *required = member(schema, "required");
    if (required != NULL && required->kind != J_ARRAY) {
        fail("the schema has a required that is not an array");
    }
    for (const struct json *name = required == NULL ? NULL : required->first; name != NULL; name = name->next) {
        if (name->kind != J_STRING) {
            fail("the schema requires a name that is not a string");
        }
        if (member_named(value, name->text) == NULL) {
            add_text("the member ");
            add(name->text);
            add_text(" is missing");
            report(path);
        }
    }
    const struct json *properties = member(schema, "properties");
    if (properties != NULL && properties->kind != J_OBJECT) {
        fail("the schema has properties that are not an object");
    }
#if PRO
    const struct json *additional = member(schema, "additionalProperties");
#endif
    for (const struct json *child = value->first; child != NULL && !enough(); child = child->next) {
        struct path inner = {path, child->name, 0, true};
        const struct json *property = properties == NULL ? NULL : member_named(properties, child->name);
        if (property != NULL) {
            validate(property, child, &inner, depth + 1);
#if PRO
        } else if (additional != NULL && additional->kind == J_BOOLEAN) {
            if (!additional->truth) {
                add_text("this member is not allowed");
                report(&inner);
            }
        } else if (additional != NULL) {
            validate(additional, child, &inner, depth + 1);
#endif
        }
    }
}

static void check_array(const struct json *schema, const struct json *value, const struct path *path, int depth) {
    const struct json *items = member(schema, "items");
    size_t index = 0;
    for (const struct json *child = value->first; child != NULL && !enough(); child = child->next, index++) {
        struct path inner = {path, {"", 0}, index, false};
        if (items != NULL) {
            validate(items, child, &inner, depth + 1);
        }
    }
#if PRO
    const struct json *unique = member(schema, "uniqueItems");
    if (unique != NULL && unique->truth) {
        if (value->count > 2000) {
            fail("uniqueItems is supported for up to 2000 items");
        }
        for (const struct json *a = value->first; a != NULL; a = a->next) {
            for (const struct json *b = a->next; b != NULL; b = b->next) {
                if (equal(a, b)) {
                    add_text("two items are equal");
                    report(path);
                    return;
                }
            }
        }
    }
#endif
}

#if PRO

/* The number under a keyword, if the schema has it. */
static bool limit(const struct json *schema, const char *name, double *number) {
    const struct json *found = member(schema, name);
    if (found == NULL) {
        return false;
    }
    if (found->kind != J_NUMBER) {
        fail_about("the schema wants a number here", found->name);
    }
    *number = found->number;
    return true;
}

static void check_count(
    const struct json *schema, const char *least, const char *most, size_t count, const char *what, const struct path *path
) {
    double bound;
    if (limit(schema, least, &bound) && (double)count < bound) {
        add_text("there are ");
        add_number(count);
        add_text(what);
        add_text(", fewer than ");
        add_text(least);
        report(path);
    }
    if (limit(schema, most, &bound) && (double)count > bound) {
        add_text("there are ");
        add_number(count);
        add_text(what);
        add_text(", more than ");
        add_text(most);
        report(path);
    }
}

static void check_number(const struct json *schema, double number, const struct path *path) {
    double bound;
    if (limit(schema, "minimum", &bound) && number < bound) {
        add_text("the number is below the minimum");
        report(path);
    }
    if (limit(schema, "maximum", &bound) && number > bound) {
        add_text("the number is above the maximum");
        report(path);
    }
    if (limit(schema, "exclusiveMinimum", &bound) && number <= bound) {
        add_text("the number is not above the exclusive minimum");
        report(path);
    }
    if (limit(schema, "exclusiveMaximum", &bound) && number >= bound) {
        add_text("the number is not below the exclusive maximum");
        report(path);
    }
    if (limit(schema, "multipleOf", &bound)) {
        if (bound <= 0) {
            fail("the schema has a multipleOf that is not above zero");
        }
        double times = number / bound;
        /* 0.3 is meant to be a multiple of 0.1, although in binary it is not quite. */
        if (fabs(times - round(times)) > 1e-9 * fmax(1, fabs(times))) {
            add_text("the number is not a multiple of multipleOf");
            report(path);
        }
    }
}

/* Whether a value satisfies a schema; its errors are counted and not kept. */
static bool satisfies(const struct json *schema, const struct json *value, const struct path *path, int depth) {
    size_t outer = trials;
    size_t before = trial_errors;
    trials = outer + 1;
    trial_errors = 0;
    validate(schema, value, path, depth);
    bool clean = trial_errors == 0;
    trials = outer;
    trial_errors = before;
    return clean;
}

static void check_combinations(const struct json *schema, const struct json *value, const struct path *path, int depth) {
    const struct json *all = member(schema, "allOf");
    const struct json *any = member(schema, "anyOf");
    const struct json *one = member(schema, "oneOf");
    const struct json *not = member(schema, "not");
    const struct json *lists[] = {all, any, one};
    for (size_t i = 0; i < 3; i++) {
        if (lists[i] != NULL && (lists[i]->kind != J_ARRAY || lists[i]->count == 0)) {
            fail_about("the schema wants a list of schemas here", lists[i]->name);
        }
    }
    for (const struct json *each = all == NULL ? NULL : all->first; each != NULL; each = each->next) {
        validate(each, value, path, depth + 1);
    }
    if (any != NULL) {
        bool found = false;
        for (const struct json *each = any->first; each != NULL && !found; each = each->next) {
            found = satisfies(each, value, path, depth + 1);
        }
        if (!found) {
            add_text("the value satisfies none of the schemas of anyOf");
            report(path);
        }
    }
    if (one != NULL) {
        size_t found = 0;
        for (const struct json *each = one->first; each != NULL; each = each->next) {
            found += satisfies(each, value, path, depth + 1);
        }
        if (found != 1) {
            add_text("the value satisfies ");
            add_number(found);
            add_text(" of the schemas of oneOf, not exactly one");
            report(path);
        }
    }
    if (not != NULL && satisfies(not, value, path, depth + 1)) {
        add_text("the value satisfies the schema of not");
        report(path);
    }
}

/* Follows a reference such as "#/$defs/name" from the root of the schema. */
static const struct json *resolve(struct slice reference) {
    if (reference.len == 0 || reference.at[0] != '#') {
        fail_about("the schema refers to another document", reference);
    }
    const struct json *at = root;
    size_t i = 1;
    while (i < reference.len) {
        if (reference.at[i] != '/') {
            fail_about("the schema has a reference that is no JSON Pointer", reference);
        }
        char *name = take(reference.len, 1);
        size_t len = 0;
        for (i++; i < reference.len && reference.at[i] != '/'; i++) {
            bool escape = reference.at[i] == '~' && i + 1 < reference.len;
            name[len++] = !escape ? reference.at[i] : reference.at[++i] == '0' ? '~' : '/';
        }
        struct slice wanted = {name, len};
        if (at->kind == J_ARRAY) {
            size_t index = 0;
            for (size_t d = 0; d < len; d++) {
                index = name[d] >= '0' && name[d] <= '9' && index < 1000000 ? index * 10 + (size_t)(name[d] - '0') : 1000000;
            }
            for (at = at->first; at != NULL && index > 0; index--) {
                at = at->next;
            }
        } else {
            at = at->kind == J_OBJECT ? member_named(at, wanted) : NULL;
        }
        if (at == NULL) {
            fail_about("the schema refers to nothing", reference);
        }
    }
    return at;
}

#endif

static void validate(const struct json *schema, const struct json *value, const struct path *path, int depth) {
    if (depth > MAX_DEPTH) {
        fail("the schema refers to itself without end, or is nested too deeply");
    }
    if (enough()) {
        return;
    }
    if (schema->kind == J_BOOLEAN) {
        if (!schema->truth) {
            add_text("no value is allowed here");
            report(path);
        }
        return;
    }
    if (schema->kind != J_OBJECT) {
        fail("a schema must be an object or a boolean");
    }
    for (const struct json *rule = schema->first; rule != NULL; rule = rule->next) {
        if (!listed(rule->name, SUPPORTED, sizeof SUPPORTED / sizeof *SUPPORTED)
            && !listed(rule->name, SILENT, sizeof SILENT / sizeof *SILENT)
            && !(rule->name.len > 2 && memcmp(rule->name.at, "x-", 2) == 0)) {
            fail_about("the schema has a keyword that this agent does not support", rule->name);
        }
    }
    const struct json *rule = member(schema, "type");
    if (rule != NULL) {
        check_type(rule, value, path);
    }
    rule = member(schema, "enum");
    if (rule != NULL) {
        if (rule->kind != J_ARRAY) {
            fail("the schema has an enum that is not an array");
        }
        bool found = false;
        for (const struct json *each = rule->first; each != NULL && !found; each = each->next) {
            found = equal(each, value);
        }
        if (!found) {
            add_text("the value is not one of the enum");
            report(path);
        }
    }
    rule = member(schema, "const");
    if (rule != NULL && !equal(rule, value)) {
        add_text("the value is not the constant");
        report(path);
    }
#if PRO
    rule = member(schema, "$ref");
    if (rule != NULL) {
        if (rule->kind != J_STRING) {
            fail("the schema has a reference that is not a string");
        }
        validate(resolve(rule->text), value, path, depth + 1);
    }
    switch (value->kind) {
    case J_NUMBER: check_number(schema, value->number, path); break;
    case J_STRING: check_count(schema, "minLength", "maxLength", letters(value->text), " characters", path); break;
    case J_ARRAY: check_count(schema, "minItems", "maxItems", value->count, " items", path); break;
    case J_OBJECT: check_count(schema, "minProperties", "maxProperties", value->count, " members", path); break;
    case J_NULL: case J_BOOLEAN: break;
    }
#endif
    if (value->kind == J_OBJECT) {
        check_object(schema, value, path, depth);
    }
    if (value->kind == J_ARRAY) {
        check_array(schema, value, path, depth);
    }
#if PRO
    check_combinations(schema, value, path, depth);
#endif
}

int main(void) {
    const struct json *input = read_input();
    root = member(input, "schema");
    const struct json *value = member(input, "value");
    if (root == NULL || value == NULL) {
        fail("the input must be an object with the members schema and value");
    }
    validate(root, value, NULL, 0);

    open_object();
    key("valid");
    put_boolean(error_count == 0);
    key("errors");
    open_array();
    for (size_t i = 0; i < error_count; i++) {
        open_object();
        key("path");
        put_string(errors[i].path);
        key("message");
        put_string(errors[i].message);
        close_object();
    }
    close_array();
#if PRO
    key("truncated");
    put_boolean(truncated);
#endif
    close_object();
    finish();
    return 0;
}
