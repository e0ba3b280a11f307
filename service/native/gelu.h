/* Odd polynomial of erf(x / sqrt 2) / x in x^2, highest power first, for |x| <= 4: GELU is within 1.5e-4 for |x| <= 4 and
 * within 4e-5 |x| beyond, where the u8 that it becomes has steps of a hundredth. */
#define GELU_BOUND 4.0f
#define GELU_COEFFICIENTS 9
static const float GELU[GELU_COEFFICIENTS] = {
    1.348077205e-10f,
    -1.213380152e-08f,
    4.881686664e-07f,
    -1.172119482e-05f,
    1.898804476e-04f,
    -2.225711942e-03f,
    1.963160001e-02f,
    -1.326472610e-01f,
    7.977620363e-01f,
};
