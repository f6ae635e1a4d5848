package main

import (
	"bufio"
	"fmt"
	"slices"
	"strings"
	"time"
)

// How continuous integration divides its time. The groups are made as if all other tests took 44 minutes on two quiet processors, as they
// did on 2026-11-30. What runs after them has until minute 70, and half as much again as was measured: the longest test fits in just so.
const (
	otherTests = 44 * time.Minute
	lastEnd    = 70 * time.Minute // what cannot end by then is not started
	hardStop   = 85 * time.Minute // what runs then is ended
	workers    = 3                // tests that run at a time: virtual machines wait a third of their time
	kept       = 60               // seconds that the fixture needs in continuous integration: the tests before left its parts in the cache
)

// fixture is the test that makes what all others start from. It is run first, in each process.
const fixture = "TestSoakFixture"

// item is one soak test.
type item struct {
	pkg, name string
	seconds   int // measured, while two others ran beside it
}

// parseList reads the list: on each line seconds, package and name; # begins a comment.
func parseList(text string) (out []item, err error) {
	lines := bufio.NewScanner(strings.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if strings.TrimSpace(line) == "" {
			continue
		}
		var it item
		if _, err := fmt.Sscanf(line, "%d %s %s", &it.seconds, &it.pkg, &it.name); err != nil {
			return nil, fmt.Errorf("%s:%d: %q: %w", listFile, n, line, err)
		}
		out = append(out, it)
	}
	return out, nil
}

// renewed is the list with the times of results in place of those of the tests that passed.
func renewed(items []item, results []result) string {
	var b strings.Builder
	b.WriteString("# Soak tests: measured seconds, package, name. Written by make soak RENEW=1.\n")
	for _, it := range items {
		for _, r := range results {
			if r.name == it.name && r.state == passed {
				it.seconds = int(r.took.Seconds()) + 1
			}
		}
		fmt.Fprintf(&b, "%5d %s %s\n", it.seconds, it.pkg, it.name)
	}
	return b.String()
}

// need is how long the tests take in continuous integration, at half as much again as was measured: three at a time behind the fixture.
func need(items []item) time.Duration {
	sum, longest := 0, 0
	for _, it := range items {
		sum += it.seconds
		longest = max(longest, it.seconds)
	}
	return time.Duration(kept+max(longest, (sum+longest)/workers)) * time.Second * 3 / 2
}

// split takes the fixture out of the list.
func split(items []item) (first item, rest []item) {
	for _, it := range items {
		if it.name == fixture {
			first = it
		} else {
			rest = append(rest, it)
		}
	}
	return first, rest
}

// turns divides the list into groups that fit into what is left until minute 70: one for each commit, in turn. A test that fits nowhere
// has a group of its own.
func turns(items []item) (out [][]item) {
	_, rest := split(items)
	var group []item
	for _, it := range rest {
		if more := append(slices.Clone(group), it); len(group) > 0 && need(more) > lastEnd-otherTests {
			out, group = append(out, group), nil
		}
		group = append(group, it)
	}
	if len(group) > 0 {
		out = append(out, group)
	}
	return out
}

// choose returns the tests of a commit: the fixture, and the group whose turn it is. Each time that a group comes again another of its tests
// is the first, so that one which finds no time is not left out again.
func choose(items []item, commit int) []item {
	groups := turns(items)
	if len(groups) == 0 {
		return nil
	}
	group := groups[commit%len(groups)]
	at := commit / len(groups) % len(group)
	first, _ := split(items)
	return slices.Concat([]item{first}, group[at:], group[:at])
}

// fitting returns those that end within the time, from the first one on, and the others. Nothing fits where only the fixture does.
func fitting(chosen []item, left time.Duration) (fit, others []item) {
	first, rest := split(chosen)
	for _, it := range rest {
		if need(append(slices.Clone(fit), it)) <= left {
			fit = append(fit, it)
		} else {
			others = append(others, it)
		}
	}
	if slices.ContainsFunc(fit, func(it item) bool { return it.pkg == first.pkg }) {
		fit = slices.Insert(fit, 0, first)
	}
	return fit, others
}
