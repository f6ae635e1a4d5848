package report

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"gprovision/hw/durable"
	"gprovision/model/record"
)

// MaxQueue limits the events in a Queue, in bytes of JSON. Beyond it the oldest debug records are dropped first, then
// the oldest log records, then the oldest events of other kinds. State events are never dropped.
const MaxQueue = 8 << 20

// How much one boot may queue before its debug records are left out. It is half of what the server accepts from one
// boot, so that there is room for everything else.
const (
	debugBytes   = 32 << 20
	debugRecords = 50_000
)

// FactDropped is the name of the fact that counts the records that the unit did not send in this boot.
const FactDropped = "recordsDropped"

const (
	maxSegment  = 256 << 10 // bytes in one file of the queue
	maxLoad     = 2 * MaxQueue
	seqReserve  = 1 << 20 // sequence numbers to skip if the last run ended without Close
	sendPause   = 100 * time.Millisecond
	segmentName = ".jsonl"
)

// Sender sends events to the server. *Client is one.
type Sender interface {
	Send(ctx context.Context, events []record.Event) (record.BatchReply, error)
}

// Queue keeps the events of a unit until the server has them. Add never blocks. Events are sent in the order of Add,
// those of earlier boots before those of this one. There is one exception: while the server has no room for other
// events, states go first.
//
// The server limits what a boot may send. A boot that logs too much leaves out its debug records. Log records that
// the server refuses for good are dropped, debug records first. The fact FactDropped counts all of them.
type Queue struct {
	boot string
	max  int
	now  func() time.Time

	mu       sync.Mutex
	items    []*item // oldest first
	size     int     // bytes of items
	next     uint64  // sequence number of the next event
	numbered bool    // a number has left this process
	sent     int
	dropped  int
	spent    int64     // bytes that this boot has queued in total
	told     int       // dropped events that a fact has reported
	states   time.Time // until then send only states and QA lines: the server's disk is nearly full
	lastErr  error
	changed  chan struct{} // closed and replaced at each change of items

	disk *disk // nil before Persist and after Release

	wakeSend, wakeDisk chan struct{}
	cancel             context.CancelFunc
	workers            sync.WaitGroup
}

// item is one queued event.
type item struct {
	event record.Event
	line  []byte // JSON with its newline
	seg   uint64 // file that holds it, 0 for none
}

// NewQueue returns an empty Queue in memory for the events of this boot.
func NewQueue(boot string) *Queue {
	return &Queue{boot: boot, max: MaxQueue, now: time.Now, next: 1, changed: make(chan struct{}), wakeSend: make(chan struct{}, 1), wakeDisk: make(chan struct{}, 1)}
}

// Add queues an event and returns it as queued. It sets Boot and Seq, and Time and Source if they are missing. It
// trims what exceeds the limits of package record. An event that is left out has no Seq. Add never waits for a disk
// or the network.
func (q *Queue) Add(e record.Event) record.Event {
	if e.Time.IsZero() {
		e.Time = q.now()
	}
	e.Time = e.Time.UTC().Round(0)
	if e.Source == "" {
		e.Source = record.Observed
	}
	e.Boot = q.boot
	e = e.Trim()
	q.mu.Lock()
	defer q.mu.Unlock()
	e.Seq = q.next
	line, err := json.Marshal(e)
	if err != nil { // the year is outside 0 to 9999: after Trim nothing else can be wrong
		e.Time = time.Unix(0, 0).UTC()
		if line, err = json.Marshal(e); err != nil {
			q.dropped++
			return e
		}
	}
	if isDebug(e) && (q.spent > debugBytes || q.next > debugRecords) {
		q.drop()
		e.Seq = 0
		return e
	}
	q.next++
	q.spent += int64(len(line))
	it := &item{event: e, line: append(line, '\n')}
	q.items = append(q.items, it)
	q.size += len(it.line)
	if q.size > q.max {
		q.shrink()
	}
	poke(q.wakeSend)
	poke(q.wakeDisk)
	return e
}

// isDebug reports whether e is of the kind that is missed least.
func isDebug(e record.Event) bool { return e.Kind == record.KindLog && e.Level == "DEBUG" }

// drop counts a lost event. The caller holds mu.
func (q *Queue) drop() {
	q.dropped++
	if q.dropped >= 2*q.told+100 { // otherwise Flush reports them
		q.tellDropped()
	}
}

// tellDropped queues the fact with the number of lost events. It is no log record, because there may be no room for
// those. The caller holds mu.
func (q *Queue) tellDropped() {
	if q.told == q.dropped {
		return
	}
	q.told = q.dropped
	e := record.Event{Boot: q.boot, Seq: q.next, Time: q.now().UTC().Round(0), Kind: record.KindFact, Source: record.Observed,
		Attrs: map[string]any{"name": FactDropped, "value": q.dropped}}
	if line, err := json.Marshal(e); err == nil {
		it := &item{event: e, line: append(line, '\n')}
		q.next++
		q.items = append(q.items, it)
		q.size += len(it.line)
		poke(q.wakeSend)
		poke(q.wakeDisk)
	}
}

// shrink drops events until an eighth of the room is free.
func (q *Queue) shrink() {
	for _, may := range []func(record.Event) bool{isDebug, func(e record.Event) bool { return e.Kind == record.KindLog }} {
		q.remove(func(it *item) bool { return q.size > q.max/8*7 && may(it.event) })
	}
	q.remove(func(it *item) bool { return q.size > q.max && it.event.Kind != record.KindState })
}

// remove drops the events that f selects, and returns their number. The caller holds mu.
func (q *Queue) remove(f func(*item) bool) int {
	n := 0
	q.items = slices.DeleteFunc(q.items, func(it *item) bool {
		if !f(it) {
			return false
		}
		q.size -= len(it.line)
		n++
		if q.disk != nil {
			q.disk.forget(it, true)
		}
		return true
	})
	q.dropped += n
	return n
}

// dropRefused drops events that the server refuses for good because their boot has stored too much. It drops the debug
// records of those boots. If there are none, it drops all of their log records. If there is nothing else, it drops
// the refused events.
func (q *Queue) dropRefused(batch []*item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	boots, refused := map[string]bool{}, map[*item]bool{}
	for _, it := range batch {
		boots[it.event.Boot] = true
		refused[it] = true
	}
	for _, may := range []func(*item) bool{
		func(it *item) bool { return isDebug(it.event) },
		func(it *item) bool { return it.event.Kind == record.KindLog },
		func(it *item) bool { return refused[it] && it.event.Kind != record.KindFact },
		func(it *item) bool { return refused[it] },
	} {
		if q.remove(func(it *item) bool { return boots[it.event.Boot] && may(it) }) > 0 {
			break
		}
	}
	q.tellDropped()
	q.wakeWaiters()
	poke(q.wakeDisk)
}

// isUrgent reports whether a server accepts an event even when its disk is nearly full.
func isUrgent(e record.Event) bool { return e.Kind == record.KindState || e.Kind == record.KindQA }

// onlyStates limits sending to states for a minute. It returns false if that limit was already on.
func (q *Queue) onlyStates() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	if now.Before(q.states) {
		return false
	}
	q.states = now.Add(time.Minute)
	return true
}

// Start starts sending in the background. Another call replaces the sender. first reports whether this is the first call.
func (q *Queue) Start(s Sender) (first bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if first = q.cancel == nil; !first {
		q.cancel()
	}
	ctx, cancel := context.WithCancel(context.Background())
	q.cancel = cancel
	q.workers.Add(1)
	go q.send(ctx, s)
	return first
}

// Sending reports whether events have a way to the server.
func (q *Queue) Sending() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.cancel != nil
}

// send is the background sender.
func (q *Queue) send(ctx context.Context, s Sender) {
	defer q.workers.Done()
	defer poke(q.wakeSend) // for the sender that takes its place
	pause, limit := time.Second, record.MaxBatch
	for {
		batch := q.nextBatch(limit)
		if len(batch) == 0 {
			select {
			case <-q.wakeSend:
			case <-q.moreAllowed():
			case <-ctx.Done():
				return
			}
			if sleep(ctx, sendPause) != nil { // give a burst time to become one request
				return
			}
			continue
		}
		events := make([]record.Event, len(batch))
		for i, it := range batch {
			events[i] = it.event
		}
		_, err := s.Send(ctx, events)
		var p *Refusal
		switch {
		case err == nil:
			pause, limit = time.Second, record.MaxBatch
			q.removeBatch(batch, true)
			continue
		case ctx.Err() != nil:
			return
		case errors.As(err, &p) && (p.Problem.Code == record.ProblemSyntax || p.Problem.Code == record.ProblemTooLarge):
			// One event is bad. Halve the batch to find it, and drop only that.
			if len(batch) > 1 {
				limit = (len(batch) + 1) / 2
			} else {
				q.removeBatch(batch, false)
			}
			q.setError(err)
			continue
		case errors.As(err, &p) && p.Problem.Code == record.ProblemQuota:
			q.setError(err)
			q.dropRefused(batch)
			continue
		case errors.As(err, &p) && p.Problem.Code == record.ProblemFull && q.onlyStates():
			q.setError(err)
			continue
		}
		q.setError(err)
		if sleep(ctx, pause) != nil {
			return
		}
		pause = min(2*pause, 30*time.Second)
	}
}

// nextBatch returns the oldest events that fit into one request. While the server accepts only some kinds, it returns only
// those.
func (q *Queue) nextBatch(limit int) []*item {
	q.mu.Lock()
	defer q.mu.Unlock()
	only := q.now().Before(q.states)
	size := 0
	var batch []*item
	for _, it := range q.items {
		if only && !isUrgent(it.event) {
			continue
		}
		if size += len(it.line); len(batch) == limit || len(batch) > 0 && size >= record.MaxBody/2 {
			break
		}
		batch = append(batch, it)
	}
	q.numbered = q.numbered || len(batch) > 0
	return batch
}

// moreAllowed returns a channel that fires when more than states may be sent again. It is nil if that is so now.
func (q *Queue) moreAllowed() <-chan time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	if d := q.states.Sub(q.now()); d > 0 && len(q.items) > 0 {
		return time.After(d)
	}
	return nil
}

// removeBatch removes events that need no more work.
func (q *Queue) removeBatch(batch []*item, sent bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	gone := make(map[*item]bool, len(batch))
	for _, it := range batch {
		gone[it] = true
	}
	q.items = slices.DeleteFunc(q.items, func(it *item) bool {
		if !gone[it] {
			return false
		}
		q.size -= len(it.line)
		if sent {
			q.sent++
		} else {
			q.dropped++
		}
		if q.disk != nil {
			q.disk.forget(it, false)
		}
		return true
	})
	if sent {
		q.lastErr = nil
	}
	q.wakeWaiters()
	poke(q.wakeDisk)
}

func (q *Queue) setError(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lastErr = err
	q.wakeWaiters()
}

// wakeWaiters wakes those who wait for a change. The caller holds mu.
func (q *Queue) wakeWaiters() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// Flush waits until the server has every event added before the call, or ctx ends.
func (q *Queue) Flush(ctx context.Context) error {
	q.mu.Lock()
	q.tellDropped()
	last := q.newest()
	q.mu.Unlock()
	if last == nil {
		return nil
	}
	return q.waitUntil(ctx, "send queued events", func() bool { return !slices.Contains(q.items, last) })
}

// newest returns the event added last, or nil. The caller holds mu.
func (q *Queue) newest() *item {
	if len(q.items) == 0 {
		return nil
	}
	return q.items[len(q.items)-1]
}

// Sync waits until every event added before the call is in a file or at the server, or ctx ends. It is an error
// without Persist.
func (q *Queue) Sync(ctx context.Context) error {
	q.mu.Lock()
	last, d := q.newest(), q.disk
	q.mu.Unlock()
	if d == nil {
		return errors.New("save queued events: the queue has no directory")
	}
	if last == nil {
		return nil
	}
	return q.waitUntil(ctx, "save queued events", func() bool { return last.seg != 0 || !slices.Contains(q.items, last) })
}

// waitUntil waits until ok returns true. It calls ok with mu held.
func (q *Queue) waitUntil(ctx context.Context, what string, ok func() bool) error {
	for {
		q.mu.Lock()
		if ok() {
			q.mu.Unlock()
			return nil
		}
		ch, err := q.changed, q.lastErr
		q.mu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, errors.Join(ctx.Err(), err))
		}
	}
}

// Persist from now on keeps the queue in files below dir. It takes over what earlier boots left there. It makes a
// missing directory, and locks it against other processes until Release. The files are treated as hostile: what does
// not parse, or is too much, is left out.
func (q *Queue) Persist(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("queue directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("lock queue: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return fmt.Errorf("lock queue %s: %w", dir, err)
	}
	d := &disk{dir: dir, lock: lock, live: map[uint64]int{}, dirty: map[uint64]bool{}, stop: make(chan struct{}), stopped: make(chan struct{})}
	old, err := d.load()
	if err != nil {
		lock.Close()
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.disk != nil {
		lock.Close()
		return errors.New("the queue has a directory already")
	}
	if seq := d.reserved(q.boot); seq > q.next || seq > 1 && len(q.items) > 0 {
		// An earlier process of this boot used the directory. Continue after its numbers.
		if q.numbered || q.sent > 0 {
			lock.Close()
			return errors.New("the queue of this boot was used by another process, and events were sent already")
		}
		for i, it := range q.items {
			it.event.Seq = seq + uint64(i)
			if line, err := json.Marshal(it.event); err == nil {
				q.size += len(line) + 1 - len(it.line)
				it.line = append(line, '\n')
			}
		}
		q.next = seq + uint64(len(q.items))
	}
	if err := d.reserve(q.boot, q.next+seqReserve); err != nil {
		lock.Close()
		return err
	}
	for _, it := range old {
		q.size += len(it.line)
	}
	q.items = append(old, q.items...)
	q.disk = d
	if q.size > q.max {
		q.shrink()
	}
	q.workers.Add(1)
	go q.save(d)
	poke(q.wakeDisk)
	poke(q.wakeSend)
	return nil
}

// TakeOver moves the events in dir into the queue. An earlier process of this boot left them in memory. The queue
// must already have a directory of its own. TakeOver waits until the events are saved, or ctx ends, and then removes
// them from dir. A missing dir counts as empty.
func (q *Queue) TakeOver(ctx context.Context, dir string) error {
	d := &disk{dir: dir, live: map[uint64]int{}}
	items, err := d.load()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	q.mu.Lock()
	for _, it := range items {
		it.seg = 0
		q.size += len(it.line)
	}
	q.items = append(q.items, items...)
	q.next = max(q.next, d.reserved(q.boot))
	poke(q.wakeDisk)
	poke(q.wakeSend)
	q.mu.Unlock()
	if err := q.Sync(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove events that were taken over: %w", err)
	}
	return nil
}

// Release saves what can be saved at once and releases the directory, so that its filesystem can be unmounted. The
// queue goes on in memory. Without Persist, Release does nothing.
func (q *Queue) Release() error {
	q.mu.Lock()
	last, d := q.newest(), q.disk
	q.mu.Unlock()
	if d == nil {
		return nil
	}
	close(d.stop)
	<-d.stopped
	unsaved := func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return last != nil && last.seg == 0 && slices.Contains(q.items, last)
	}
	err := q.saveOnce(d)
	for err == nil && unsaved() { // new events stay in memory from now on: endless logging must not hold this up
		err = q.saveOnce(d)
	}
	q.mu.Lock()
	next := q.next // only now: events queued and saved in the meantime have their numbers
	q.disk = nil
	for _, it := range q.items {
		it.seg = 0
	}
	q.mu.Unlock()
	return errors.Join(err, d.reserve(q.boot, next), d.lock.Close())
}

// Close stops sending, saves, and releases the directory. It does not wait for the server. That is what Flush does.
func (q *Queue) Close() error {
	q.mu.Lock()
	if q.cancel != nil {
		q.cancel()
		q.cancel = nil
	}
	q.mu.Unlock()
	err := q.Release()
	q.workers.Wait()
	return err
}

// disk is the queue's directory: numbered files of JSON lines. Queue.mu guards its maps.
type disk struct {
	dir   string
	lock  *os.File
	cur   uint64          // the file that grows
	grown int             // its size
	live  map[uint64]int  // number of events by file
	dirty map[uint64]bool // files to rewrite, because they hold dropped events or a torn line
	gone  []uint64        // files to remove

	stop, stopped chan struct{}
}

func (d *disk) path(n uint64) string {
	return filepath.Join(d.dir, fmt.Sprintf("%012d%s", n, segmentName))
}

// forget records that an event is no longer queued. The caller holds mu.
func (d *disk) forget(it *item, rewrite bool) {
	if it.seg == 0 {
		return
	}
	d.live[it.seg]--
	if d.live[it.seg] == 0 {
		delete(d.live, it.seg)
		delete(d.dirty, it.seg)
		d.gone = append(d.gone, it.seg)
		if it.seg == d.cur {
			d.cur++
			d.grown = 0
		}
	} else if rewrite {
		d.dirty[it.seg] = true
	}
}

// load reads what earlier processes left, oldest first.
func (d *disk) load() ([]*item, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, fmt.Errorf("read queue: %w", err)
	}
	var segs []uint64
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), segmentName)
		n, err := strconv.ParseUint(name, 10, 62)
		if !ok || err != nil || n == 0 || !e.Type().IsRegular() {
			if durable.Leftover(e.Name()) || strings.HasSuffix(e.Name(), ".tmp") { // version 0.1.0 used .tmp
				os.Remove(filepath.Join(d.dir, e.Name()))
			}
			continue
		}
		segs = append(segs, n)
	}
	slices.Sort(segs)
	total := 0
	var items []*item
	for _, n := range segs {
		d.cur = n
		f, err := os.OpenFile(d.path(n), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		count := 0
		for _, it := range parseLines(io.LimitReader(f, maxSegment+record.MaxEvent+1)) {
			if total += len(it.line); total > maxLoad {
				break
			}
			it.seg = n
			items = append(items, it)
			count++
		}
		f.Close()
		if count == 0 {
			d.gone = append(d.gone, n)
		} else {
			d.live[n] = count
		}
	}
	d.cur++ // never append to a file of an earlier process: its last line may be torn
	return items, nil
}

// parseLines parses events, one JSON object per line. It skips lines that are not valid events.
func parseLines(r io.Reader) []*item {
	var items []*item
	s := bufio.NewScanner(r)
	s.Buffer(nil, record.MaxEvent+record.MaxMessage)
	for s.Scan() {
		var e record.Event
		if json.Unmarshal(s.Bytes(), &e) != nil || e.Validate() != nil || len(s.Bytes()) > record.MaxEvent {
			continue
		}
		items = append(items, &item{event: e, line: append(bytes.Clone(s.Bytes()), '\n')})
	}
	return items
}

// counter is the content of the file with a boot's next sequence number.
type counter struct {
	Boot string `json:"boot"`
	Next uint64 `json:"next"`
}

// readRegular returns the first most bytes of a file. Anything but a regular file is an error, such as a link, or a
// pipe that would never end.
func readRegular(path string, most int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return io.ReadAll(io.LimitReader(f, most))
}

// reserved returns the first free sequence number of boot.
func (d *disk) reserved(boot string) uint64 {
	const most = 4096
	b, err := readRegular(filepath.Join(d.dir, "next.json"), most+1)
	var c counter
	if err != nil || len(b) > most || json.Unmarshal(b, &c) != nil || c.Boot != boot || c.Next == 0 || c.Next > 1<<60 {
		return 1
	}
	return c.Next
}

func (d *disk) reserve(boot string, next uint64) error {
	b, err := json.Marshal(counter{boot, next})
	if err != nil {
		return err
	}
	return durable.Write(filepath.Join(d.dir, "next.json"), b, 0o600)
}

// save runs in the background and writes the queue to disk.
func (q *Queue) save(d *disk) {
	defer q.workers.Done()
	defer close(d.stopped)
	var retry <-chan time.Time
	for {
		select {
		case <-q.wakeDisk:
		case <-retry:
		case <-d.stop:
			return
		}
		retry = nil
		if err := q.saveOnce(d); err != nil {
			q.setError(err)
			retry = time.After(5 * time.Second)
		}
	}
}

// saveOnce brings the directory up to date. It appends new events, rewrites files that lost some, and removes empty
// ones.
func (q *Queue) saveOnce(d *disk) error {
	q.mu.Lock()
	var fresh []*item
	var buf []byte
	for _, it := range q.items {
		if it.seg == 0 {
			fresh = append(fresh, it)
			if buf = append(buf, it.line...); len(buf) >= maxSegment/2 {
				break
			}
		}
	}
	if d.grown+len(buf) > maxSegment {
		d.cur++
		d.grown = 0
	}
	seg := d.cur
	gone := d.gone
	d.gone = nil
	var dirty []uint64
	for n := range d.dirty {
		dirty = append(dirty, n)
	}
	clear(d.dirty)
	anew := map[uint64][]byte{}
	for _, it := range q.items {
		if it.seg != 0 && slices.Contains(dirty, it.seg) {
			anew[it.seg] = append(anew[it.seg], it.line...)
		}
	}
	q.mu.Unlock()

	var err error
	for _, n := range gone {
		if e := os.Remove(d.path(n)); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("remove queue file: %w", e))
		}
	}
	for n, b := range anew {
		if e := durable.Write(d.path(n), b, 0o600); e != nil {
			err = errors.Join(err, e)
			q.mu.Lock()
			d.dirty[n] = true
			q.mu.Unlock()
		} else if n == seg {
			q.mu.Lock()
			d.grown = len(b)
			q.mu.Unlock()
		}
	}
	if len(fresh) == 0 {
		return err
	}
	if e := appendSync(d.path(seg), buf); e != nil {
		q.mu.Lock()
		d.cur++ // the file may end in a torn line
		d.grown = 0
		q.mu.Unlock()
		return errors.Join(err, e)
	}
	q.mu.Lock()
	if d.cur == seg {
		d.grown += len(buf)
	}
	still := make(map[*item]bool, len(q.items))
	for _, it := range q.items {
		still[it] = true
	}
	live := 0
	for _, it := range fresh {
		if still[it] {
			it.seg = seg
			live++
		}
	}
	d.gone = slices.DeleteFunc(d.gone, func(n uint64) bool { return n == seg })
	d.live[seg] += live
	if d.live[seg] == 0 { // the server got all of them in the meantime
		delete(d.live, seg)
		d.gone = append(d.gone, seg)
		if seg == d.cur {
			d.cur++
			d.grown = 0
		}
	}
	poke(q.wakeDisk)
	q.wakeWaiters()
	q.mu.Unlock()
	return err
}

func appendSync(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("save queue: %w", err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("save queue: %w", err)
	}
	return durable.Sync(filepath.Dir(path))
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
