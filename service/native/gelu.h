/* Odd polynomial of erf(x / sqrt 2) / x in x^2, highest power first, for |x| <= 4.5: GELU in floats is within 1e-4. */
#define GELU_BOUND 4.5f
#define GELU_COEFFICIENTS 11
static const float GELU[GELU_COEFFICIENTS] = {
    1.190853107e-13f,
    -1.587598282e-11f,
    9.581285765e-10f,
    -3.488399969e-08f,
    8.639356679e-07f,
    -1.560076453e-05f,
    2.150473738e-04f,
    -2.325430745e-03f,
    1.985652745e-02f,
    -1.328967065e-01f,
    7.978572845e-01f,
};
