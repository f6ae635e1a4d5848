package usb

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestAsker: a hub that hangs does not hold up who asks, nor the questions about others, and is asked once; when it answers that counts.
func TestAsker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		talks := make(chan struct{})
		var asked atomic.Int32
		stuck := Address{1, 1}
		go func() {
			err := serve(theirs, theirs, func(h Address, ports []int) ([]int, error) {
				switch h {
				case stuck:
					asked.Add(1)
					<-talks
					return ports, nil
				case Address{3, 1}:
					return ports[:1], errors.New("half")
				}
				return nil, nil
			})
			if err != nil && !errors.Is(err, io.ErrClosedPipe) {
				t.Error(err)
			}
		}()
		connected := NewAsker(ours, t.TempDir()).Doors().Connected
		for range 3 {
			began := time.Now()
			if _, err := connected(stuck, []int{1, 2}); !errors.Is(err, ErrBusy) || time.Since(began) != askTime {
				t.Errorf("%v after %v", err, time.Since(began))
			}
		}
		if p, err := connected(Address{2, 1}, []int{1}); err != nil || len(p) > 0 {
			t.Errorf("another hub: %v, %v", p, err)
		}
		if p, err := connected(Address{3, 1}, []int{4, 5}); err == nil || !slices.Equal(p, []int{4}) {
			t.Errorf("half an answer: %v, %v", p, err)
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("the hub that hangs was asked %d times", n)
		}
		time.AfterFunc(askTime/2, func() { close(talks) })
		if p, err := connected(stuck, []int{2}); err != nil || !slices.Equal(p, []int{1, 2}) {
			t.Errorf("%v, %v", p, err)
		}
		if p, err := connected(stuck, []int{2}); err != nil || !slices.Equal(p, []int{2}) || asked.Load() != 2 {
			t.Errorf("a later question: %v, %v, asked %d times", p, err, asked.Load())
		}
		theirs.Close()
		synctest.Wait()
		if _, err := connected(stuck, []int{2}); err == nil || errors.Is(err, ErrBusy) {
			t.Errorf("who asks is gone, and it says %v", err)
		}
		ours.Close()
		synctest.Wait()
	})
}
