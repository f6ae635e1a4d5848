package usb_test

import (
	"fmt"
	"os"
	"time"

	"gprovision/hw/usb"
)

// A wait for sticks that ends when nothing is on its way any more, or after half a minute.
func ExampleRead() {
	doors := usb.Machine("/dev")
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		state := usb.Read(os.DirFS("/sys"), doors)
		if len(state.Pending) == 0 && state.Settling == 0 {
			return
		}
		fmt.Println("waiting for", state.Pending)
	}
}
