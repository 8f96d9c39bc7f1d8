"""What schedules mean, said a second time: random schedules and the times at
which they come, worked out minute by minute with Python's zoneinfo.

Usage: schedule_oracle.py SEED CASES. A line a case, separated by tabs: the
schedule, the time to start from, the end of the time that was looked at, and
the first times after the start as an array.

The rule: a local time comes at the first instant at which the clock shows it or
a later time; a line that holds in every hour also comes whenever the clock
shows it again.
"""
import calendar
import random
import sys
import zoneinfo
from datetime import datetime, timedelta, timezone

UTC = timezone.utc
MINUTE = timedelta(minutes=1)
DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
SHOWN = 12


def week_day(day):
    return (day.weekday() + 1) % 7


def random_list(rng, low, high, names=None):
    """A field of a cron line, and the values that it has."""
    values = set()
    texts = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        kind = rng.random()
        a = rng.randint(low, high)
        b = rng.randint(a, high)
        step = rng.randint(1, max(1, high // 2))
        show = lambda v: names[v - low] if names and rng.random() < 0.5 else str(v)
        if kind < 0.45:
            values.add(a)
            texts.append(show(a))
        elif kind < 0.7:
            values.update(range(a, b + 1))
            texts.append(f"{show(a)}-{show(b)}")
        elif kind < 0.85:
            values.update(range(a, b + 1, step))
            texts.append(f"{show(a)}-{show(b)}/{step}")
        else:
            values.update(range(low, high + 1, step))
            texts.append(f"*/{step}")
    return ",".join(texts), values


def random_cron(rng, zone):
    def field(low, high, names=None, star=0.5):
        if rng.random() < star:
            return "*", set(range(low, high + 1))
        return random_list(rng, low, high, names)

    minute_text, minutes = field(0, 59, star=0.05)
    hour_text, hours = field(0, 23, star=0.35)
    day_text, days = field(1, 31, star=0.6)
    month_text, months = field(1, 12, MONTHS, star=0.85)
    week_text, weeks = field(0, 6, DAYS, star=0.6)
    if not any(d <= calendar.monthrange(2028, m)[1] for d in days for m in months):
        return random_cron(rng, zone)
    either = not day_text.startswith("*") and not week_text.startswith("*")

    def holds(day):
        if day.month not in months:
            return False
        of_month = day.day in days
        of_week = week_day(day) in weeks
        return of_month or of_week if either else of_month and of_week

    text = f"{minute_text} {hour_text} {day_text} {month_text} {week_text}"
    if zone != "UTC" or rng.random() < 0.5:
        text += f" {zone}"
    return text, holds, {60 * h + m for h in hours for m in minutes}, len(hours) == 24


def random_days(rng, zone):
    days = rng.sample(range(7), rng.randint(1, 7))
    times = [rng.randrange(1440) for _ in range(rng.randint(1, 4))]
    if rng.random() < 0.7:
        times = [rng.choice([0, 30, 60, 90, 120, 150, 180, 1410, 1439, t]) for t in times]
    text = "on " + rng.choice([",", ", "]).join(DAYS[d] for d in days)
    text += " at " + ",".join(f"{t // 60:02}:{t % 60:02}" for t in times)
    if zone != "UTC" or rng.random() < 0.5:
        text += f" {zone}"
    return text, lambda day: week_day(day) in days, set(times), False


def transition(rng, zone):
    """A time near which clocks change, if they do in that year."""
    at = datetime(rng.randint(1990, 2045), 1, 1, tzinfo=UTC)
    offset = at.astimezone(zone).utcoffset()
    found = []
    for _ in range(366):
        at += timedelta(days=1)
        if at.astimezone(zone).utcoffset() != offset:
            offset = at.astimezone(zone).utcoffset()
            found.append(at)
    return rng.choice(found) if found else at - timedelta(days=rng.randrange(366))


def times_of(holds, minutes, every_hour, zone, start, end):
    found = set()
    instant = start - timedelta(days=3)
    highest = instant.astimezone(zone).replace(tzinfo=None)
    wanted = lambda local: local.hour * 60 + local.minute in minutes and holds(local.date())
    while instant < end:
        instant += MINUTE
        local = instant.astimezone(zone).replace(tzinfo=None)
        if every_hour and wanted(local):
            found.add(instant)
        passed = highest
        while passed < local:
            passed += MINUTE
            if wanted(passed):
                found.add(instant)
        highest = max(highest, local)
    return sorted(t for t in found if start < t <= end)


def main():
    rng = random.Random(int(sys.argv[1]))
    # others are written as rules with digits, which schedules do not take
    zones = sorted(z for z in zoneinfo.available_timezones() if not any(c in "0123456789+" for c in z)
                   and z not in ("localtime", "posixrules", "Factory") and not z.startswith(("posix/", "right/")))
    for _ in range(int(sys.argv[2])):
        name = rng.choice(zones + ["UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo",
                                   "America/Sao_Paulo", "Asia/Beirut", "Pacific/Apia", "Europe/Dublin"] * 10)
        zone = zoneinfo.ZoneInfo(name)
        text, holds, minutes, every_hour = rng.choice([random_cron, random_days])(rng, name)
        start = transition(rng, zone) - timedelta(minutes=rng.randrange(4 * 1440), seconds=rng.choice([0, 17]))
        # on the minute, but for what comes after it
        end = (start + timedelta(days=6)).replace(second=0)
        base = start.replace(second=0)
        found = [t for t in times_of(holds, minutes, every_hour, zone, base, end) if t > start][:SHOWN]
        print("\t".join([text, start.isoformat(), end.isoformat(), "{" + ",".join(t.isoformat() for t in found) + "}"]))


if __name__ == "__main__":
    main()
