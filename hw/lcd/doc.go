// Package lcd drives Crystalfontz character LCDs with keys over any serial port: the 631 (20x2, four keys) and the 635 (20x4, six
// keys), by USB of both generations or by a plain serial line.
//
// It has three layers, each usable alone. Packet and Decoder are the protocol's frames. Conn is one LCD on one open port: a request
// waits for its reply and is repeated when none comes. Display keeps a picture on whatever LCD is there: it finds it again after
// unplugging, sends only what changed, and gives its keys. Text, Menu and the other drawing functions are pure.
//
// It knows nothing of what is shown. Sources: the maker's data sheets of the CFA631 and CFA635.
package lcd
