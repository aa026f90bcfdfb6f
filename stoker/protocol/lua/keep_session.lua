-- keep_session: begin the idle time of a session anew.
-- KEYS  1 session  2 session tasks  3 sessions
-- ARGV  1 session id
-- OK    {"OK"}        ERR  SESSION_UNKNOWN  SESSION_OVER
-- include common, sessions
local over = session_end(KEYS[1], KEYS[2])
if over ~= '' then
  return over and {'SESSION_OVER', over} or {'SESSION_UNKNOWN'}
end
touch_session(KEYS[1], KEYS[2], KEYS[3], ARGV[1])
return {'OK'}
