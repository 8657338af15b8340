#include "words.h"

#include <string.h>
#include <wctype.h>

static bool inner(uint32_t letter) {
    return letter == '\'' || letter == 0x2019 || letter == '-';
}

static bool wordy(uint32_t letter) {
    return iswalnum((wint_t)letter) != 0;
}

static size_t append(char *to, uint32_t letter) {
    if (letter < 0x80) {
        to[0] = (char)letter;
        return 1;
    }
    size_t more = letter < 0x800 ? 1 : letter < 0x10000 ? 2 : 3;
    to[0] = (char)((more == 1 ? 0xc0 : more == 2 ? 0xe0 : 0xf0) | letter >> (6 * more));
    for (size_t i = 1; i <= more; i++) {
        to[i] = (char)(0x80 | (letter >> (6 * (more - i)) & 0x3f));
    }
    return more + 1;
}

bool next_word(struct slice text, size_t *at, struct slice *word, bool *broken) {
    bool other = false;
    size_t start = *at;
    while (*at < text.len) {
        start = *at;
        uint32_t letter = next_letter(text, at);
        if (wordy(letter)) {
            break;
        }
        other |= !iswspace((wint_t)letter);
        start = text.len;
    }
    if (start >= text.len) {
        return false;
    }
    /* In lower case a letter can need more bytes than before, though never more than four. */
    size_t end = *at;
    while (end < text.len) {
        size_t after = end;
        uint32_t letter = next_letter(text, &after);
        if (!wordy(letter)) {
            if (!inner(letter) || after >= text.len) {
                break;
            }
            size_t beyond = after;
            if (!wordy(next_letter(text, &beyond))) {
                break;
            }
        }
        end = after;
    }
    struct slice raw = {text.at + start, end - start};
    char *lower = take(letters(raw) * 4, 1);
    size_t len = 0;
    for (size_t i = 0; i < raw.len;) {
        uint32_t letter = next_letter(raw, &i);
        len += append(lower + len, letter == 0x2019 ? '\'' : (uint32_t)towlower((wint_t)letter));
    }
    *at = end;
    *word = (struct slice){lower, len};
    if (broken != NULL) {
        *broken = other;
    }
    return true;
}

static size_t hash(struct slice text) {
    uint32_t mixed = 2166136261u;
    for (size_t i = 0; i < text.len; i++) {
        mixed = (mixed ^ (unsigned char)text.at[i]) * 16777619u;
    }
    return mixed ^ mixed >> 15;
}

static struct word **slot(struct word **slots, size_t room, struct slice text) {
    size_t at = hash(text) & (room - 1);
    while (slots[at] != NULL && !same(slots[at]->text, text)) {
        at = (at + 1) & (room - 1);
    }
    return &slots[at];
}

struct word *entry(struct tally *tally, struct slice text) {
    if (tally->used * 2 >= tally->room) {
        size_t room = tally->room == 0 ? 256 : tally->room * 2;
        struct word **slots = take(room, sizeof *slots);
        for (size_t i = 0; i < tally->room; i++) {
            if (tally->slots[i] != NULL) {
                *slot(slots, room, tally->slots[i]->text) = tally->slots[i];
            }
        }
        tally->slots = slots;
        tally->room = room;
    }
    struct word **place = slot(tally->slots, tally->room, text);
    if (*place == NULL) {
        *place = take(1, sizeof **place);
        (*place)->text = text;
        tally->used++;
    }
    return *place;
}

struct word **entries(const struct tally *tally) {
    struct word **all = take(tally->used + 1, sizeof *all);
    size_t count = 0;
    for (size_t i = 0; i < tally->room; i++) {
        if (tally->slots[i] != NULL) {
            all[count++] = tally->slots[i];
        }
    }
    return all;
}

int by_count(const void *a, const void *b) {
    const struct word *left = *(struct word *const *)a;
    const struct word *right = *(struct word *const *)b;
    if (left->count != right->count) {
        return left->count > right->count ? -1 : 1;
    }
    return order(left->text, right->text);
}
