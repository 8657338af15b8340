-- One script for every load of wrk. The variables LOAD_* of the environment say what is asked; answers that are not what they should be
-- are counted, and the last line says all of it to run.py.
--
-- LOAD_BODY     the body, with @AUCTION@, @AGENT@, @KEY@ and @NUMBER@, which goes round; none makes it a GET
-- LOAD_MODE     distinct: every request another pair of auction and agent; hot: the same auction until 1,000 agents have bid in it;
--               page: auctions in turn
-- LOAD_FIRST    the number of the first request
-- LOAD_EXPECT   what every answer has to contain, or nothing

local function lines(name)
  local found = {}
  if name and name ~= "" then
    for line in io.lines(name) do found[#found + 1] = line end
  end
  return found
end

local body = os.getenv("LOAD_BODY") or ""
local mode = os.getenv("LOAD_MODE") or "fixed"
local expect = os.getenv("LOAD_EXPECT") or ""
local auctions, agents = lines(os.getenv("LOAD_AUCTIONS")), lines(os.getenv("LOAD_AGENTS"))
local tokens = lines(os.getenv("LOAD_TOKENS"))
local offset = tonumber(os.getenv("LOAD_AGENT_OFFSET") or "0")
local heads = {}
for place = 1, math.max(#tokens, 1) do
  heads[place] = { ["content-type"] = "application/json" }
  if tokens[place] then heads[place]["authorization"] = "Bearer " .. tokens[place] end
end

count, wrong, example = tonumber(os.getenv("LOAD_FIRST") or "0"), 0, ""
local threads = {}

function setup(thread) threads[#threads + 1] = thread end

-- The body as pieces between its words, so that a request only joins them.
local pieces = {}
do
  local from = 1
  while true do
    local start, stop, word = body:find("@(%u+)@", from)
    pieces[#pieces + 1] = body:sub(from, (start or 0) - 1)
    if not start then break end
    pieces[#pieces + 1] = "@" .. word
    from = stop + 1
  end
end

function request()
  local number = count
  count = count + 1
  if body == "" then return wrk.format("GET") end
  local auction, agent
  if mode == "distinct" then
    auction, agent = auctions[number % #auctions + 1], agents[(offset + math.floor(number / #auctions)) % #agents + 1]
  elseif mode == "hot" then
    auction, agent = auctions[math.floor(number / 1000) % #auctions + 1], agents[number % 1000 + 1]
  elseif mode == "page" then
    auction = auctions[number % #auctions + 1]
  end
  local out = {}
  for place = 1, #pieces do
    local piece = pieces[place]
    if piece == "@AUCTION" then piece = auction
    elseif piece == "@AGENT" then piece = agent
    elseif piece == "@KEY" then piece = (os.getenv("LOAD_NAME") or "load") .. "-" .. number
    elseif piece == "@NUMBER" then piece = tostring(math.floor(number / #heads + number) % #heads) end
    out[place] = piece
  end
  return wrk.format("POST", nil, heads[number % #heads + 1], table.concat(out))
end

if expect ~= "" then
  function response(status, _, answer)
    if status ~= 200 or not answer:find(expect, 1, true) or answer:find('"errors":[{', 1, true) or answer:find('"userErrors":[{', 1, true) then
      wrong = wrong + 1
      if example == "" then example = status .. " " .. answer:sub(1, 300) end
    end
  end
end

function done(summary, latency)
  local last, bad, first = 0, summary.errors.status, ""
  for _, thread in ipairs(threads) do
    last = math.max(last, thread:get("count"))
    if expect ~= "" then bad = thread:get("wrong") end
    first = thread:get("example")
  end
  local lost = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format('LOAD {"requests": %d, "micros": %d, "p50": %.3f, "p90": %.3f, "p99": %.3f, "p999": %.3f, "wrong": %d, "next": %d}\n',
    summary.requests, summary.duration, latency:percentile(50) / 1000, latency:percentile(90) / 1000, latency:percentile(99) / 1000,
    latency:percentile(99.9) / 1000, bad + lost, last))
  if first ~= "" then io.write("EXAMPLE " .. first:gsub("\n", " ") .. "\n") end
end
