#include "agent.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void send(int stream, const char *bytes, size_t len) {
    while (len > 0) {
        ssize_t sent = write(stream, bytes, len);
        if (sent <= 0) {
            _Exit(1);
        }
        bytes += sent;
        len -= (size_t)sent;
    }
}

void fail(const char *reason) {
    send(2, reason, strlen(reason));
    send(2, "\n", 1);
    _Exit(1);
}

void fail_about(const char *reason, struct slice name) {
    send(2, reason, strlen(reason));
    send(2, ": ", 2);
    send(2, name.at, name.len < 200 ? name.len : 200);
    send(2, "\n", 1);
    _Exit(1);
}

void *take(size_t count, size_t size) {
    /* Small pieces come out of large blocks: the reader takes one for every value. */
    static char *block;
    static size_t left;
    if (size != 0 && count > SIZE_MAX / 2 / size) {
        fail("the input is too large");
    }
    size_t bytes = (count * size + 15) & ~(size_t)15;
    if (bytes > 16384) {
        void *large = calloc(1, bytes);
        if (large == NULL) {
            fail("there is not enough memory for this input");
        }
        return large;
    }
    if (bytes > left) {
        block = calloc(1, 65536);
        if (block == NULL) {
            fail("there is not enough memory for this input");
        }
        left = 65536;
    }
    void *piece = block;
    block += bytes;
    left -= bytes;
    return piece;
}

bool same(struct slice a, struct slice b) {
    return a.len == b.len && memcmp(a.at, b.at, a.len) == 0;
}

bool is(struct slice a, const char *text) {
    return same(a, (struct slice){text, strlen(text)});
}

int order(struct slice a, struct slice b) {
    int bytes = memcmp(a.at, b.at, a.len < b.len ? a.len : b.len);
    if (bytes != 0) {
        return bytes;
    }
    return a.len < b.len ? -1 : a.len > b.len;
}

uint32_t next_letter(struct slice text, size_t *at) {
    unsigned char first = (unsigned char)text.at[*at];
    size_t more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    uint32_t letter = more == 0 ? first : first & (0x3fu >> more);
    *at += 1;
    for (; more > 0 && *at < text.len; more -= 1, *at += 1) {
        letter = letter << 6 | ((unsigned char)text.at[*at] & 0x3fu);
    }
    return letter;
}

size_t letters(struct slice text) {
    size_t count = 0;
    for (size_t i = 0; i < text.len; i++) {
        count += ((unsigned char)text.at[i] & 0xc0) != 0x80;
    }
    return count;
}

/* ------------------------------------------------------------------------------------------------------ numbers */

static double power_of_ten(int exponent) {
    /* Powers up to 22 are exact, so the usual numbers are rounded once. */
    double power = 1;
    double base = 10;
    for (; exponent > 0; exponent >>= 1, base *= base) {
        if (exponent & 1) {
            power *= base;
        }
    }
    return power;
}

/* The C library has `strtod` and `printf` for these two jobs. They are exact to the last bit of every number, and they are
 * two thirds of a module, which every first run compiles. */
double decimal(struct slice text) {
    size_t i = text.len > 0 && text.at[0] == '-';
    bool negative = i == 1;
    uint64_t digits = 0;
    int exponent = 0;
    bool fraction = false;
    for (; i < text.len && text.at[i] != 'e' && text.at[i] != 'E'; i++) {
        if (text.at[i] == '.') {
            fraction = true;
        } else if (digits < 1000000000000000000u) {
            digits = digits * 10 + (uint64_t)(text.at[i] - '0');
            exponent -= fraction;
        } else {
            exponent += !fraction;
        }
    }
    if (i < text.len) {
        i++;
        bool minus = i < text.len && text.at[i] == '-';
        i += i < text.len && (text.at[i] == '-' || text.at[i] == '+');
        int given = 0;
        for (; i < text.len; i++) {
            given = given < 100000 ? given * 10 + (text.at[i] - '0') : given;
        }
        exponent += minus ? -given : given;
    }
    while (digits != 0 && digits % 10 == 0 && exponent < 0) {
        digits /= 10;
        exponent++;
    }
    double number = (double)digits;
    if (digits == 0) {
        number = 0;
    } else if (exponent < -300) {
        number = exponent < -350 ? 0 : number / power_of_ten(300) / power_of_ten(-300 - exponent);
    } else if (exponent < 0) {
        number /= power_of_ten(-exponent);
    } else {
        number *= power_of_ten(exponent < 400 ? exponent : 400);
    }
    return negative ? -number : number;
}

/* ------------------------------------------------------------------------------------------------------- the reader */

static struct slice source;
static size_t position;

static int peek(void) {
    return position < source.len ? (unsigned char)source.at[position] : -1;
}

static void skip_space(void) {
    while (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r') {
        position++;
    }
}

static void expect_word(const char *word) {
    size_t len = strlen(word);
    if (source.len - position < len || memcmp(source.at + position, word, len) != 0) {
        fail("the input is not JSON: an unknown word");
    }
    position += len;
}

static uint32_t read_hex4(void) {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++, position++) {
        int c = peek();
        if (c >= '0' && c <= '9') {
            value = value * 16 + (uint32_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            value = value * 16 + (uint32_t)(c - 'a' + 10);
        } else if (c >= 'A' && c <= 'F') {
            value = value * 16 + (uint32_t)(c - 'A' + 10);
        } else {
            fail("the input is not JSON: \\u wants four hexadecimal digits");
        }
    }
    return value;
}

static size_t encode(char *to, uint32_t letter) {
    if (letter < 0x80) {
        to[0] = (char)letter;
        return 1;
    }
    if (letter < 0x800) {
        to[0] = (char)(0xc0 | letter >> 6);
        to[1] = (char)(0x80 | (letter & 0x3f));
        return 2;
    }
    if (letter < 0x10000) {
        to[0] = (char)(0xe0 | letter >> 12);
        to[1] = (char)(0x80 | (letter >> 6 & 0x3f));
        to[2] = (char)(0x80 | (letter & 0x3f));
        return 3;
    }
    to[0] = (char)(0xf0 | letter >> 18);
    to[1] = (char)(0x80 | (letter >> 12 & 0x3f));
    to[2] = (char)(0x80 | (letter >> 6 & 0x3f));
    to[3] = (char)(0x80 | (letter & 0x3f));
    return 4;
}

/* Copies one UTF-8 sequence of two to four bytes; overlong forms, surrogates and what lies past U+10FFFF are refused. */
static size_t copy_sequence(char *to) {
    unsigned char first = (unsigned char)source.at[position];
    size_t len = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || source.len - position < len) {
        fail("the input is not UTF-8");
    }
    for (size_t i = 1; i < len; i++) {
        if (((unsigned char)source.at[position + i] & 0xc0) != 0x80) {
            fail("the input is not UTF-8");
        }
    }
    unsigned char second = (unsigned char)source.at[position + 1];
    if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) || (first == 0xf0 && second < 0x90)
        || (first == 0xf4 && second > 0x8f)) {
        fail("the input is not UTF-8");
    }
    memcpy(to, source.at + position, len);
    position += len;
    return len;
}

static struct slice read_string(void) {
    position++;
    size_t end = position;
    while (end < source.len && source.at[end] != '"') {
        end += source.at[end] == '\\' ? 2 : 1;
    }
    if (end >= source.len) {
        fail("the input is not JSON: a string has no end");
    }
    /* An escape is never shorter than what it stands for, so the raw length is enough. */
    char *text = take(end - position + 1, 1);
    size_t len = 0;
    while (peek() != '"') {
        int c = peek();
        if (c < 0x20) {
            fail("the input is not JSON: a control character within a string");
        }
        if (c >= 0x80) {
            len += copy_sequence(text + len);
            continue;
        }
        position++;
        if (c != '\\') {
            text[len++] = (char)c;
            continue;
        }
        c = peek();
        position++;
        switch (c) {
        case '"': case '\\': case '/': text[len++] = (char)c; break;
        case 'b': text[len++] = '\b'; break;
        case 'f': text[len++] = '\f'; break;
        case 'n': text[len++] = '\n'; break;
        case 'r': text[len++] = '\r'; break;
        case 't': text[len++] = '\t'; break;
        case 'u': {
            uint32_t letter = read_hex4();
            if (letter >= 0xd800 && letter < 0xdc00 && source.len - position >= 2 && source.at[position] == '\\'
                && source.at[position + 1] == 'u') {
                position += 2;
                uint32_t low = read_hex4();
                if (low < 0xdc00 || low > 0xdfff) {
                    fail("the input is not JSON: half of a surrogate pair");
                }
                letter = 0x10000 + ((letter - 0xd800) << 10) + (low - 0xdc00);
            } else if (letter >= 0xd800 && letter < 0xe000) {
                fail("the input is not JSON: half of a surrogate pair");
            }
            len += encode(text + len, letter);
            break;
        }
        default: fail("the input is not JSON: an unknown escape");
        }
    }
    position++;
    return (struct slice){text, len};
}

static void read_digits(void) {
    if (peek() < '0' || peek() > '9') {
        fail("the input is not JSON: a number wants a digit");
    }
    while (peek() >= '0' && peek() <= '9') {
        position++;
    }
}

static double read_number(void) {
    size_t start = position;
    if (peek() == '-') {
        position++;
    }
    if (peek() == '0') {
        position++;
    } else {
        read_digits();
    }
    if (peek() == '.') {
        position++;
        read_digits();
    }
    if (peek() == 'e' || peek() == 'E') {
        position++;
        if (peek() == '+' || peek() == '-') {
            position++;
        }
        read_digits();
    }
    double number = decimal((struct slice){source.at + start, position - start});
    if (!isfinite(number)) {
        fail("the input has a number that is too large");
    }
    return number;
}

static struct json *read_value(int depth);

static void read_members(struct json *parent, int depth, char end, bool named) {
    struct json **last = &parent->first;
    position++;
    skip_space();
    if (peek() == end) {
        position++;
        return;
    }
    for (;;) {
        struct slice name = {"", 0};
        skip_space();
        if (named) {
            if (peek() != '"') {
                fail("the input is not JSON: a member wants a name");
            }
            name = read_string();
            skip_space();
            if (peek() != ':') {
                fail("the input is not JSON: a name wants a colon");
            }
            position++;
        }
        struct json *child = read_value(depth + 1);
        child->name = name;
        *last = child;
        last = &child->next;
        parent->count++;
        skip_space();
        int c = peek();
        position++;
        if (c == end) {
            return;
        }
        if (c != ',') {
            fail("the input is not JSON: a comma or an end is missing");
        }
    }
}

static struct json *read_value(int depth) {
    if (depth > MAX_DEPTH) {
        fail("the input is nested too deeply");
    }
    struct json *value = take(1, sizeof *value);
    skip_space();
    switch (peek()) {
    case '{':
        value->kind = J_OBJECT;
        read_members(value, depth, '}', true);
        break;
    case '[':
        value->kind = J_ARRAY;
        read_members(value, depth, ']', false);
        break;
    case '"':
        value->kind = J_STRING;
        value->text = read_string();
        break;
    case 't':
        expect_word("true");
        value->kind = J_BOOLEAN;
        value->truth = true;
        break;
    case 'f':
        expect_word("false");
        value->kind = J_BOOLEAN;
        break;
    case 'n':
        expect_word("null");
        break;
    case -1:
        fail("the input is not JSON: it ends too early");
    default:
        value->kind = J_NUMBER;
        value->number = read_number();
    }
    return value;
}

#if JSON_ABI

/* The input as the host has put it into memory. */
static struct slice given;

const struct json *read_input(void) {
    source = given;
    const struct json *value = read_value(0);
    skip_space();
    if (position != source.len) {
        fail("the input is not JSON: something follows the value");
    }
    return value;
}

#else

const struct json *read_input(void) {
    size_t room = 16384;
    size_t len = 0;
    char *bytes = malloc(room + 1);
    for (;;) {
        if (bytes == NULL) {
            fail("there is not enough memory for this input");
        }
        ssize_t got = read(0, bytes + len, room - len);
        if (got < 0) {
            fail("the input cannot be read");
        }
        if (got == 0) {
            break;
        }
        len += (size_t)got;
        if (len == room) {
            room *= 2;
            bytes = realloc(bytes, room + 1);
        }
    }
    bytes[len] = 0;
    source = (struct slice){bytes, len};
    const struct json *value = read_value(0);
    skip_space();
    if (position != source.len) {
        fail("the input is not JSON: something follows the value");
    }
    return value;
}

#endif

const struct json *member(const struct json *object, const char *name) {
    const struct json *found = NULL;
    if (object->kind == J_OBJECT) {
        for (const struct json *child = object->first; child != NULL; child = child->next) {
            if (is(child->name, name)) {
                found = child;
            }
        }
    }
    return found;
}

static bool contains(const struct json *object, const struct json *wanted) {
    for (const struct json *child = object->first; child != NULL; child = child->next) {
        if (same(child->name, wanted->name) && equal(child, wanted)) {
            return true;
        }
    }
    return false;
}

bool equal(const struct json *a, const struct json *b) {
    if (a->kind != b->kind || a->count != b->count) {
        return false;
    }
    switch (a->kind) {
    case J_NULL: return true;
    case J_BOOLEAN: return a->truth == b->truth;
    case J_NUMBER: return a->number == b->number;
    case J_STRING: return same(a->text, b->text);
    case J_ARRAY:
        for (a = a->first, b = b->first; a != NULL; a = a->next, b = b->next) {
            if (!equal(a, b)) {
                return false;
            }
        }
        return true;
    case J_OBJECT:
        for (const struct json *child = a->first; child != NULL; child = child->next) {
            if (!contains(b, child)) {
                return false;
            }
        }
        return true;
    }
    return false;
}

const char *kind_name(enum kind kind) {
    static const char *const names[] = {"null", "boolean", "number", "string", "array", "object"};
    return names[kind];
}

/* ------------------------------------------------------------------------------------------------------- the writer */

static char *output;
static size_t output_len;
static size_t output_room;
static bool comma;

static void emit(const char *bytes, size_t len) {
    if (len > output_room - output_len) {
        output_room = (output_room + len) * 2 + 4096;
        output = realloc(output, output_room);
        if (output == NULL) {
            fail("there is not enough memory for this output");
        }
    }
    memcpy(output + output_len, bytes, len);
    output_len += len;
}

static void before_value(void) {
    if (comma) {
        emit(",", 1);
    }
    comma = true;
}

void open_object(void) {
    before_value();
    emit("{", 1);
    comma = false;
}

void open_array(void) {
    before_value();
    emit("[", 1);
    comma = false;
}

void close_object(void) {
    emit("}", 1);
    comma = true;
}

void close_array(void) {
    emit("]", 1);
    comma = true;
}

void key(const char *name) {
    put_text(name);
    emit(":", 1);
    comma = false;
}

void put_string(struct slice text) {
    static const char hex[] = "0123456789abcdef";
    before_value();
    emit("\"", 1);
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.at[i];
        char escape[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
        switch (c) {
        case '"': case '\\': escape[1] = (char)c; emit(escape, 2); break;
        case '\n': emit("\\n", 2); break;
        case '\r': emit("\\r", 2); break;
        case '\t': emit("\\t", 2); break;
        default:
            if (c < 0x20 || c == 0x7f) {
                emit(escape, 6);
            } else {
                emit(text.at + i, 1);
            }
        }
    }
    emit("\"", 1);
}

void put_text(const char *text) {
    put_string((struct slice){text, strlen(text)});
}

static size_t write_digits(char *to, uint64_t number, size_t least) {
    char digits[20];
    size_t at = sizeof digits;
    for (; number != 0 || sizeof digits - at < least; number /= 10) {
        digits[--at] = (char)('0' + number % 10);
    }
    memcpy(to, digits + at, sizeof digits - at);
    return sizeof digits - at;
}

void put_integer(uint64_t number) {
    char digits[20];
    size_t len = write_digits(digits, number, 1);
    before_value();
    emit(digits, len);
}

static size_t drop_zeros(const char *text, size_t len) {
    while (text[len - 1] == '0') {
        len--;
    }
    return text[len - 1] == '.' ? len - 1 : len;
}

void put_number(double number) {
    char text[64];
    size_t len = 0;
    double size = fabs(number);
    int exponent = 0;
    /* Past here the steps between numbers are a tenth and more; 15 digits and an exponent say all there is. */
    if (size >= 1e15) {
        while (size >= power_of_ten(exponent + 1)) {
            exponent++;
        }
        size /= power_of_ten(exponent);
    }
    double scale = exponent == 0 ? 1e6 : 1e14;
    uint64_t whole = (uint64_t)size;
    uint64_t part = (uint64_t)floor((size - (double)whole) * scale + 0.5);
    if (part >= (uint64_t)scale) {
        part = 0;
        whole++;
    }
    if (number < 0 && (whole != 0 || part != 0)) {
        text[len++] = '-';
    }
    len += write_digits(text + len, whole, 1);
    text[len++] = '.';
    len += write_digits(text + len, part, exponent == 0 ? 6 : 14);
    len = drop_zeros(text, len);
    if (exponent != 0) {
        text[len++] = 'e';
        len += write_digits(text + len, (uint64_t)exponent, 1);
    }
    before_value();
    emit(text, len);
}

void put_boolean(bool truth) {
    before_value();
    emit(truth ? "true" : "false", truth ? 4 : 5);
}

void put_null(void) {
    before_value();
    emit("null", 4);
}

#if JSON_ABI

/* The output stays where it is until the host asks for it. */
void finish(void) {}

/* What `main` is called here, where nobody starts a program. */
int answer(void);

__attribute__((export_name("alloc_memory"))) void *alloc_memory(size_t size) {
    /* The reader looks one byte past the end, and finds a zero there. */
    return calloc(size + 1, 1);
}

__attribute__((export_name("execute"))) int execute(const char *at, size_t len) {
    given = (struct slice){at, len};
    return answer();
}

__attribute__((export_name("get_result_ptr"))) const char *get_result_ptr(void) {
    return output;
}

__attribute__((export_name("get_result_len"))) size_t get_result_len(void) {
    return output_len;
}

#else

void finish(void) {
    send(1, output, output_len);
}

#endif
