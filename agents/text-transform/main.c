/*
 * text.transform in C, through the JSON interface.
 *
 * Input: an object with the strings `text` and `operation`. Letters are changed one by one: "ß" becomes "ẞ", never "SS".
 */
#include "../common/agent.h"

#include <stdlib.h>
#include <wctype.h>

static char *made;
static size_t made_len;

static bool is_space(uint32_t letter) {
    return letter == ' ' || letter == '\t' || letter == '\n' || letter == '\r';
}

static void add(uint32_t letter) {
    if (letter < 0x80) {
        made[made_len++] = (char)letter;
    } else if (letter < 0x800) {
        made[made_len++] = (char)(0xc0 | letter >> 6);
        made[made_len++] = (char)(0x80 | (letter & 63));
    } else if (letter < 0x10000) {
        made[made_len++] = (char)(0xe0 | letter >> 12);
        made[made_len++] = (char)(0x80 | (letter >> 6 & 63));
        made[made_len++] = (char)(0x80 | (letter & 63));
    } else {
        made[made_len++] = (char)(0xf0 | letter >> 18);
        made[made_len++] = (char)(0x80 | (letter >> 12 & 63));
        made[made_len++] = (char)(0x80 | (letter >> 6 & 63));
        made[made_len++] = (char)(0x80 | (letter & 63));
    }
}

static struct slice trimmed(struct slice text) {
    while (text.len > 0 && is_space((unsigned char)text.at[0])) {
        text.at++;
        text.len--;
    }
    while (text.len > 0 && is_space((unsigned char)text.at[text.len - 1])) {
        text.len--;
    }
    return text;
}

static void reverse(struct slice text) {
    for (size_t end = text.len; end > 0;) {
        size_t start = end - 1;
        while (start > 0 && ((unsigned char)text.at[start] & 0xc0) == 0x80) {
            start--;
        }
        for (size_t i = start; i < end; i++) {
            made[made_len++] = text.at[i];
        }
        end = start;
    }
}

/* What one letter becomes depends on the one before it. */
static void each(struct slice text, struct slice operation) {
    bool squeeze = is(operation, "squeeze"), slug = is(operation, "slug"), title = is(operation, "title");
    bool upper = is(operation, "upper"), lower = is(operation, "lower");
    bool gap = false, word = false;
    for (size_t at = 0; at < text.len;) {
        uint32_t letter = next_letter(text, &at);
        bool alnum = iswalnum((wint_t)letter) != 0;
        if (squeeze ? is_space(letter) : slug && !alnum) {
            gap = true;
            continue;
        }
        if (gap && made_len > 0) {
            add(slug ? '-' : ' ');
        }
        gap = false;
        if (upper || (title && alnum && !word)) {
            letter = (uint32_t)towupper((wint_t)letter);
        } else if (lower || slug || title) {
            letter = (uint32_t)towlower((wint_t)letter);
        }
        word = alnum || (word && letter == '\'');
        add(letter);
    }
}

int main(void) {
    const struct json *input = read_input();
    const struct json *text = member(input, "text");
    const struct json *operation = member(input, "operation");
    if (text == NULL || text->kind != J_STRING || operation == NULL || operation->kind != J_STRING) {
        fail("the input must be an object with the strings text and operation");
    }
    static const char *const known[] = {"trim", "squeeze", "reverse", "upper", "lower", "title", "slug"};
    bool found = false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        found |= is(operation->text, known[i]);
    }
    if (!found) {
        fail_about("the operation must be trim, squeeze, reverse, upper, lower, title or slug", operation->text);
    }

    /* Changing its case makes no letter more than twice as long. */
    made = take(text->text.len + 1, 2);
    if (is(operation->text, "trim")) {
        struct slice rest = trimmed(text->text);
        made = (char *)rest.at;
        made_len = rest.len;
    } else if (is(operation->text, "reverse")) {
        reverse(text->text);
    } else {
        each(text->text, operation->text);
    }
    open_object();
    key("text");
    put_string((struct slice){made, made_len});
    close_object();
    finish();
    return 0;
}
