package usb

import (
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"
)

// askTime is how long an Asker waits for a hub. A hub that may be asked answers within milliseconds.
const askTime = 300 * time.Millisecond

// ErrBusy is the error of a hub that cannot be asked now: the kernel talks to what is connected to it, and holds the hub's lock until
// that answers or was tried for long enough (usb_lock_device in hub_event of drivers/usb/core/hub.c; more than a minute for one that is broken).
var ErrBusy = errors.New("the kernel is busy with the hub")

// Who asks a hub that is busy hangs in the kernel, and cannot even be killed; nor can a program replace itself while a thread of it hangs there.
// So the questions are asked by a process of their own, which runs Answer, and the one who wants to know has an Asker.

// question is a line to Answer, and answer a line from it.
type question struct {
	Hub   Address
	Ports []int
}

type answer struct {
	Hub       Address
	Connected []int
	Failed    string `json:",omitempty"`
}

// Answer answers questions of an Asker by the nodes of usbfs below dev, each hub apart from the others, until r ends.
func Answer(r io.Reader, w io.Writer, dev string) error {
	return serve(r, w, Machine(dev).Connected)
}

func serve(r io.Reader, w io.Writer, connected func(Address, []int) ([]int, error)) error {
	var mu sync.Mutex
	out := json.NewEncoder(w)
	for in := json.NewDecoder(r); ; {
		var q question
		if err := in.Decode(&q); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		go func() {
			a := answer{Hub: q.Hub}
			var err error
			if a.Connected, err = connected(q.Hub, q.Ports); err != nil {
				a.Failed = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			_ = out.Encode(a) // nobody is left who wants to know
		}()
	}
}

// Asker asks hubs through a process that runs Answer. It is safe for concurrent use.
type Asker struct {
	machine Doors

	mu   sync.Mutex
	out  *json.Encoder
	open map[Address]chan answer // hubs that are being asked; the last one who waits gets the answer
	dead bool
}

// NewAsker returns an Asker. c leads to the process. dev is /dev.
func NewAsker(c io.ReadWriter, dev string) *Asker {
	a := &Asker{machine: Machine(dev), out: json.NewEncoder(c), open: map[Address]chan answer{}}
	go a.read(c)
	return a
}

// read passes on answers until the process is gone.
func (a *Asker) read(r io.Reader) {
	for in := json.NewDecoder(r); ; {
		var x answer
		err := in.Decode(&x)
		a.mu.Lock()
		if err != nil {
			a.dead = true
			for _, c := range a.open {
				close(c)
			}
			clear(a.open)
			a.mu.Unlock()
			return
		}
		if c := a.open[x.Hub]; c != nil {
			c <- x // there is room: one answer for each question
			delete(a.open, x.Hub)
		}
		a.mu.Unlock()
	}
}

// Doors are those of this machine; a hub that does not answer soon gives ErrBusy.
func (a *Asker) Doors() Doors {
	d := a.machine
	d.Connected = a.connected
	return d
}

var errGone = errors.New("who asks the hubs is gone")

func (a *Asker) connected(h Address, ports []int) ([]int, error) {
	a.mu.Lock()
	if a.dead {
		a.mu.Unlock()
		return nil, errGone
	}
	_, asked := a.open[h]
	c := make(chan answer, 1)
	a.open[h] = c // an answer to an earlier question is as good: it comes after this moment
	if !asked {
		if err := a.out.Encode(question{h, ports}); err != nil {
			delete(a.open, h)
			a.mu.Unlock()
			return nil, err
		}
	}
	a.mu.Unlock()
	t := time.NewTimer(askTime)
	defer t.Stop()
	select {
	case x, ok := <-c:
		if !ok {
			return nil, errGone
		}
		if x.Failed != "" {
			return x.Connected, errors.New(x.Failed)
		}
		return x.Connected, nil
	case <-t.C:
		return nil, ErrBusy
	}
}
