/* The story an operator reads: one sentence per line, with fields for machines. */
#pragma once

enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARNING = 4, LOG_LEVEL_NOTICE = 5, LOG_LEVEL_INFO = 6, LOG_LEVEL_DEBUG = 7 };

/* `daemon` (a string that outlives the process' logging) goes before each line on stderr and
 * becomes SYSLOG_IDENTIFIER. Logs to the journal when stderr is connected to it ($JOURNAL_STREAM),
 * otherwise to stderr with a UTC time stamp in microseconds. Levels above `highest` are dropped. */
void log_init(const char *daemon, enum log_level highest);

/* Writes one sentence (no newline). Never a secret. Safe from any thread. */
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same with fields for machines, at most LOG_FIELDS_MAX, each "NAME=value" ("HCI_SITE=shop17"): they go to the journal;
 * stderr gets the sentence alone. */
#define LOG_FIELDS_MAX 12u
void log_write_fields(enum log_level level, const char *sentence, const char *const *fields, unsigned count);

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...) log_write(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)
