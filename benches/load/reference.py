"""What a task writes, and a script of pgbench that writes as many rows of the same tables in one transaction.

The tables of the script are copies with every index and check, without the foreign keys, so that it may do less than the market and not
more. A row of it is one that the market wrote, with fresh ids."""

from tools import sql

# Ids of one transaction: one for each column of each row.
STEP, COLUMNS = 4096, 40
FILLED = 2048


def writes(database):
    """The rows that each table had inserted and updated so far."""
    rows = sql(database, "SELECT relname, n_tup_ins, n_tup_upd FROM pg_stat_user_tables WHERE schemaname = 'public'")
    return {table: {"insert": int(inserts), "update": int(updates)} for table, inserts, updates in rows}


def make(ours, peer, each):
    """The script, and how many rows it writes by table."""
    rows = {table: {what: round(number) for what, number in kinds.items()} for table, kinds in each.items()}
    rows = {table: kinds for table, kinds in sorted(rows.items()) if any(kinds.values()) and not table.startswith("ref_")}
    lines = ["\\set n :n + 1", f"\\set b ((:batch * 64 + :client_id + 64) * 1000000 + :n) * {STEP}", f"\\set p :b - {STEP}",
             f"\\set r random(0, {FILLED - 1}) * {STEP}", "BEGIN;"]
    taken = 0
    for table, kinds in rows.items():
        columns = sql(ours, "SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attidentity, "
                      "EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary AND a.attnum = ANY(i.indkey)), "
                      "EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisunique AND i.indnkeyatts = 1 AND a.attnum = ANY(i.indkey) AND NOT EXISTS "
                      "(SELECT 1 FROM pg_attribute u WHERE u.attrelid = i.indrelid AND u.attnum = ANY(i.indkey) AND u.atttypid = 'uuid'::regtype)) "
                      f"FROM pg_attribute a WHERE a.attrelid = '{table}'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum")
        columns = [[name, kind, identity, primary == "t", alone == "t"] for name, kind, identity, primary, alone in columns]
        wanted = ", ".join(f"translate(quote_nullable({name}::text), E'\\t\\n', '  ')" for name, *_ in columns)
        sample = sql(ours, f"SELECT {wanted} FROM {table} ORDER BY ctid DESC LIMIT 1")[0]
        sql(peer, f"DROP TABLE IF EXISTS ref_{table}")
        sql(peer, f"CREATE TABLE ref_{table} (LIKE {table} INCLUDING ALL)")

        def value(base, place, column, literal):
            """A column of the row with the number `place` in a transaction: fresh where it has to be."""
            name, kind, identity, _, alone = column
            number = f"{base}::bigint + {place * COLUMNS + [c[0] for c in columns].index(name)}"
            if literal == "NULL":
                return literal
            if identity:
                return f"{base}::bigint + {place}"
            if kind == "uuid":
                return f"lpad(to_hex({number}), 32, '0')::uuid"
            if alone and kind in ("bigint", "integer"):
                return f"({number})"
            if alone and kind == "text":
                return f"({number})::text"
            # pgbench takes a colon before a letter for a variable of its own, wherever it is.
            text = "".join(f":' || '{literal[at + 1]}" if letter == ":" and literal[at + 1:at + 2].isalpha() else
                           "" if at and literal[at - 1] == ":" and letter.isalpha() else letter for at, letter in enumerate(literal))
            return f"({text})::{kind}"

        names = ", ".join(name for name, *_ in columns)
        over = " OVERRIDING SYSTEM VALUE" if any(column[2] for column in columns) else ""
        key = [(column, literal) for column, literal in zip(columns, sample, strict=True) if column[3]]

        def row(base, place):
            return ", ".join(value(base, place, column, literal) for column, literal in zip(columns, sample, strict=True))

        places = [taken % (STEP // COLUMNS) + number for number in range(kinds["insert"])]
        taken += kinds["insert"]
        lines += [f"INSERT INTO ref_{table} ({names}){over} VALUES ({row(':b', place)});" for place in places]
        if kinds["update"] and not kinds["insert"]:
            sql(peer, f"INSERT INTO ref_{table} ({names}){over} SELECT {row(f'(g * {STEP})', 0)} FROM generate_series(0, {FILLED - 1}) g")
        for number in range(kinds["update"]):
            # What the transaction before wrote is changed, or one of many rows that are there.
            base, place = (":p", places[number % len(places)]) if places else (":r", 0)
            where = " AND ".join(f"{column[0]} = {value(base, place, column, literal)}" for column, literal in key)
            change = f"place = {value(base, place, ('id', 'bigint', '', '', True), '1')}" if table == "events" else f"{key[0][0][0]} = {key[0][0][0]}"
            lines.append(f"UPDATE ref_{table} SET {change} WHERE {where};")
    assert taken <= STEP // COLUMNS, f"a task inserts {taken} rows"
    lines.append("COMMIT;")
    return "\n".join(lines) + "\n", rows
