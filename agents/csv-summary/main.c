/*
 * csv.summary: says what is in a table.
 *
 * Input: a JSON string with CSV, or an object {csv, delimiter}. The first record names the columns. Quoting is that of
 * RFC 4180; lines may end in CR LF, LF or CR. With PRO the delimiter is found when none is given, and each column gets a
 * type and figures; without it the columns are only counted.
 */
#include "../common/agent.h"
#include "../common/words.h"

#include <math.h>
#include <string.h>

#define MAX_COLUMNS 1000

enum type { T_EMPTY, T_BOOLEAN, T_INTEGER, T_NUMBER, T_DATE, T_STRING };

struct column {
    struct slice name;
    uint64_t count;
    uint64_t missing;
#if PRO
    enum type type;
    struct slice least_text, most_text;
    double least, most;
    double sum, lost; /* the sum with what rounding took from it */
    struct tally distinct;
#endif
};

static struct slice csv;
static size_t at;
static char delimiter = ',';

/* Reads one field; `*last` says that it ends its record. */
static struct slice read_field(bool *last) {
    struct slice field;
    if (at < csv.len && csv.at[at] == '"') {
        size_t end = at + 1;
        while (end < csv.len && (csv.at[end] != '"' || (end + 1 < csv.len && csv.at[end + 1] == '"'))) {
            end += csv.at[end] == '"' ? 2 : 1;
        }
        char *text = take(end - at, 1);
        size_t len = 0;
        for (at++;; at++) {
            if (at >= csv.len) {
                fail("the CSV has a quoted field without an end");
            }
            if (csv.at[at] == '"') {
                at++;
                if (at >= csv.len || csv.at[at] != '"') {
                    break;
                }
            }
            text[len++] = csv.at[at];
        }
        if (at < csv.len && csv.at[at] != delimiter && csv.at[at] != '\n' && csv.at[at] != '\r') {
            fail("the CSV has characters after a closing quote");
        }
        field = (struct slice){text, len};
    } else {
        size_t start = at;
        while (at < csv.len && csv.at[at] != delimiter && csv.at[at] != '\n' && csv.at[at] != '\r') {
            at++;
        }
        field = (struct slice){csv.at + start, at - start};
    }
    *last = at >= csv.len || csv.at[at] != delimiter;
    if (!*last) {
        at++;
    } else if (at < csv.len) {
        at += csv.at[at] == '\r' && at + 1 < csv.len && csv.at[at + 1] == '\n' ? 2 : 1;
    }
    return field;
}

static struct slice trim(struct slice text) {
    while (text.len > 0 && (text.at[0] == ' ' || text.at[0] == '\t')) {
        text.at++;
        text.len--;
    }
    while (text.len > 0 && (text.at[text.len - 1] == ' ' || text.at[text.len - 1] == '\t')) {
        text.len--;
    }
    return text;
}

#if PRO

static bool digit(char c) {
    return c >= '0' && c <= '9';
}

/* A number as JSON writes it. "007" is none: such values are codes, and their zeros matter. */
static enum type number_type(struct slice text) {
    size_t i = text.len > 0 && text.at[0] == '-';
    enum type type = T_INTEGER;
    if (i >= text.len || !digit(text.at[i]) || (text.at[i] == '0' && i + 1 < text.len && digit(text.at[i + 1]))) {
        return T_STRING;
    }
    while (i < text.len && digit(text.at[i])) {
        i++;
    }
    if (i > 16) {
        type = T_NUMBER;
    }
    if (i + 1 < text.len && text.at[i] == '.' && digit(text.at[i + 1])) {
        type = T_NUMBER;
        for (i++; i < text.len && digit(text.at[i]);) {
            i++;
        }
    }
    if (i + 1 < text.len && (text.at[i] == 'e' || text.at[i] == 'E')) {
        type = T_NUMBER;
        i += text.at[i + 1] == '+' || text.at[i + 1] == '-' ? 2 : 1;
        if (i >= text.len || !digit(text.at[i])) {
            return T_STRING;
        }
        while (i < text.len && digit(text.at[i])) {
            i++;
        }
    }
    return i == text.len ? type : T_STRING;
}

/* YYYY-MM-DD, alone or followed by a time. */
static bool is_date(struct slice text) {
    static const char form[] = "dddd-dd-dd";
    if (text.len < 10) {
        return false;
    }
    for (size_t i = 0; i < 10; i++) {
        if (form[i] == 'd' ? !digit(text.at[i]) : text.at[i] != '-') {
            return false;
        }
    }
    int month = (text.at[5] - '0') * 10 + text.at[6] - '0';
    int day = (text.at[8] - '0') * 10 + text.at[9] - '0';
    if (month < 1 || month > 12 || day < 1 || day > 31) {
        return false;
    }
    return text.len == 10
        || (text.len >= 16 && (text.at[10] == 'T' || text.at[10] == ' ') && digit(text.at[11]) && digit(text.at[12])
            && text.at[13] == ':' && digit(text.at[14]) && digit(text.at[15]));
}

static bool is_word(struct slice text, const char *word) {
    size_t len = strlen(word);
    if (text.len != len) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        char c = text.at[i] >= 'A' && text.at[i] <= 'Z' ? (char)(text.at[i] + 32) : text.at[i];
        if (c != word[i]) {
            return false;
        }
    }
    return true;
}

static enum type type_of(struct slice text) {
    if (is_word(text, "true") || is_word(text, "false")) {
        return T_BOOLEAN;
    }
    if (is_date(text)) {
        return T_DATE;
    }
    return number_type(text);
}

static void measure(struct column *column, struct slice value) {
    enum type type = type_of(value);
    double number = type == T_INTEGER || type == T_NUMBER ? decimal(value) : 0;
    if (!isfinite(number)) {
        type = T_STRING;
    }
    bool numbers = type == T_INTEGER || type == T_NUMBER;
    bool were_numbers = column->type == T_INTEGER || column->type == T_NUMBER;
    if (column->type == T_EMPTY) {
        column->least = column->most = number;
        column->least_text = column->most_text = value;
        column->type = type;
    } else if (numbers && were_numbers) {
        column->type = type == T_NUMBER ? T_NUMBER : column->type;
    } else if (type != column->type) {
        column->type = T_STRING;
    }
    if (order(value, column->least_text) < 0) {
        column->least_text = value;
    }
    if (order(value, column->most_text) > 0) {
        column->most_text = value;
    }
    if (numbers) {
        column->least = fmin(column->least, number);
        column->most = fmax(column->most, number);
        double sum = column->sum + number;
        column->lost += fabs(column->sum) >= fabs(number) ? column->sum - sum + number : number - sum + column->sum;
        column->sum = sum;
    }
    entry(&column->distinct, value)->count++;
}

/* The candidate that the first record has most of, outside quotes. */
static char find_delimiter(void) {
    static const char candidates[] = {',', ';', '\t', '|'};
    size_t counts[4] = {0};
    bool quoted = false;
    for (size_t i = 0; i < csv.len && (quoted || (csv.at[i] != '\n' && csv.at[i] != '\r')); i++) {
        quoted ^= csv.at[i] == '"';
        for (size_t c = 0; c < 4; c++) {
            counts[c] += !quoted && csv.at[i] == candidates[c];
        }
    }
    size_t best = 0;
    for (size_t c = 1; c < 4; c++) {
        best = counts[c] > counts[best] ? c : best;
    }
    return candidates[best];
}

static void put_figures(const struct column *column) {
    static const char *const names[] = {"empty", "boolean", "integer", "number", "date", "string"};
    key("type");
    put_text(names[column->type]);
    key("distinct");
    put_integer(column->distinct.used);
    switch (column->type) {
    case T_EMPTY:
        break;
    case T_INTEGER:
    case T_NUMBER:
        key("min");
        put_number(column->least);
        key("max");
        put_number(column->most);
        key("sum");
        put_number(column->sum + column->lost);
        key("mean");
        put_number((column->sum + column->lost) / (double)column->count);
        break;
    case T_BOOLEAN:
    case T_DATE:
    case T_STRING:
        key("min");
        put_string(column->least_text);
        key("max");
        put_string(column->most_text);
        break;
    }
}

#endif

int main(void) {
    const struct json *input = read_input();
    const struct json *given = input->kind == J_OBJECT ? member(input, "csv") : input;
    if (given == NULL || given->kind != J_STRING) {
        fail("the input must be a string, or an object with a string named csv");
    }
    csv = given->text;
    if (csv.len >= 3 && memcmp(csv.at, "\xef\xbb\xbf", 3) == 0) {
        at = 3;
    }
    const struct json *wanted = member(input, "delimiter");
    if (wanted != NULL) {
        if (wanted->kind != J_STRING || wanted->text.len != 1 || strchr("\"\r\n", wanted->text.at[0]) != NULL) {
            fail("the delimiter must be one ASCII character other than a quote or a line end");
        }
        delimiter = wanted->text.at[0];
#if PRO
    } else {
        delimiter = find_delimiter();
#endif
    }
    if (at >= csv.len) {
        fail("the CSV is empty: its first record must name the columns");
    }

    struct column *columns = take(MAX_COLUMNS, sizeof *columns);
    size_t count = 0;
    for (bool last = false; !last; count++) {
        if (count == MAX_COLUMNS) {
            fail("the CSV has more than 1000 columns");
        }
        columns[count].name = trim(read_field(&last));
    }
    uint64_t rows = 0;
    uint64_t ragged = 0;
    while (at < csv.len) {
        size_t field = 0;
        size_t start = at;
        for (bool last = false; !last; field++) {
            struct slice value = trim(read_field(&last));
            if (last && field == 0 && value.len == 0 && count > 1 && csv.at[start] != '"') {
                goto blank; /* an empty line is no row of a table with several columns */
            }
            if (field >= count) {
                continue;
            }
            if (value.len == 0) {
                columns[field].missing++;
                continue;
            }
            columns[field].count++;
#if PRO
            measure(&columns[field], value);
#endif
        }
        rows++;
        ragged += field != count;
        for (; field < count; field++) {
            columns[field].missing++;
        }
    blank:;
    }

    open_object();
    key("rows");
    put_integer(rows);
#if PRO
    key("raggedRows");
    put_integer(ragged);
    key("delimiter");
    put_string((struct slice){&delimiter, 1});
#else
    (void)ragged;
#endif
    key("columns");
    open_array();
    for (size_t i = 0; i < count; i++) {
        open_object();
        key("name");
        put_string(columns[i].name);
        key("count");
        put_integer(columns[i].count);
        key("missing");
        put_integer(columns[i].missing);
#if PRO
        put_figures(&columns[i]);
#endif
        close_object();
    }
    close_array();
    close_object();
    finish();
    return 0;
}
